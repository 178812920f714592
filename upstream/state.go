// Package upstream is what every client of a highly available service behind
// edekd stands on: a Set of nodes with a breaker each, the choice between them,
// retries within a budget, bounds on time and on what is in flight, and the one
// word that tells people how it is.
//
// A Set knows nothing of the wire. Its user hands it a function that makes one
// attempt at one node; the function returns a *Fault when the node, and not the
// request, is to blame, and any other error, or none, when the node answered.
// Only faults count against a node. A caller that went away counts for nothing.
//
// Users' requests go to nodes that are believed healthy only. A node whose
// breaker is open, or that is suspended, is tried by the Set itself, with
// Settings.Probe, until it answers; so no user waits for a node known to be
// gone, and where all are gone, everybody is refused at once.
package upstream

// State is how well an upstream can be used, in one word. Greater is worse.
//
//	state       equal writers                one active writer            a chain of providers
//	ok          a node is believed healthy   the active node is healthy   every upstream is ok
//	read-only   -                            only others are healthy      the first is not ok, another is better than cache-only
//	cache-only  no node is healthy           no node is healthy           no upstream is better than cache-only
//	down        -                            -                            no keys can be served at all
//
// In all states but down, what rings and caches hold is served. A Set has equal
// writers: every node takes reads and changes, as those of a Hadoop KMS do.
type State uint8

const (
	OK State = iota
	ReadOnly
	CacheOnly
	Down
)

func (s State) String() string {
	switch s {
	case OK:
		return "ok"
	case ReadOnly:
		return "read-only"
	case CacheOnly:
		return "cache-only"
	}
	return "down"
}
