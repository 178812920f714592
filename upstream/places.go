package upstream

// Places is how many requests by Read and Write may be under way now, so that a
// node has room for each: what usable nodes may have, less what At has sent. What
// is still at the other nodes takes nothing from that, and counts as a place too.
// It is 0 when no node is usable.
func (s *Set) Places() int {
	usable, places := false, -int(s.besides.Load())
	for _, n := range s.nodes {
		if n.usable() {
			usable = true
			places += s.settings.InFlight
		} else {
			places += int(n.inFlight.Load())
		}
	}
	if !usable {
		return 0
	}
	return max(1, places)
}
