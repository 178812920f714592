package upstream

import (
	"context"
	"errors"
	"time"
)

// A node that hangs refuses nothing, so its faults come as late as attempts end.
// But it is silent: what it was asked stays unanswered, and so does the question
// whether it is alive, which a node that is only slow answers.
const (
	// silence is how long a node may answer nothing before that is asked, and how
	// long the answer to it may take: more where answers usually take long, but
	// no more than lets a node that hangs be known within a second.
	silence      = 250 * time.Millisecond
	silenceTimes = 4 // what answers usually take
	silenceMost  = 700 * time.Millisecond
)

// errSilent is why attempts were given up.
var errSilent = errors.New("it has gone silent")

// now is the time since the node's set was made.
func (n *node) now() time.Duration { return time.Since(n.began) }

// patience is how long the node may take to say that it lives.
func (n *node) patience() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return min(max(silence, silenceTimes*n.usual), silenceMost)
}

// hold remembers an attempt that may be given up.
func (n *node) hold(attempt context.Context, giveUp context.CancelFunc) {
	n.mu.Lock()
	n.reads[attempt] = giveUp
	n.mu.Unlock()
}

func (n *node) release(attempt context.Context) {
	n.mu.Lock()
	delete(n.reads, attempt)
	n.mu.Unlock()
}

// abandon gives up attempts at a node, as many as can be made at others: the rest
// wait on, since the node may still answer.
func (s *Set) abandon(n *node) {
	room := 0
	for _, other := range s.nodes {
		if other != n && other.usable() {
			room += other.retries(s.settings.InFlight)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, giveUp := range n.reads {
		if room--; room < 0 {
			return
		}
		giveUp()
	}
}

// retries is how many retries can come to the node at once.
func (n *node) retries(limit int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return max(0, min(int(n.budget), limit-int(n.inFlight.Load())))
}

// hearken has the watcher listen to a node that an attempt begins at. Where
// there is no other node, it does not matter whether this one is silent.
func (s *Set) hearken(n *node) {
	if len(s.nodes) > 1 && !n.listened.Load() && n.listened.CompareAndSwap(false, true) {
		n.rouse()
	}
}

// listen waits for silence at a usable node for as long as something is in
// flight there. It wakes when silence would be too long if nothing came
// meanwhile, so a node that answers all the time costs a few looks a second.
func (s *Set) listen(n *node) {
	for s.ctx.Err() == nil && n.listened.Load() && n.usable() {
		heard := time.Duration(n.heard.Load())
		wait := s.due(n) - n.now()
		switch {
		case wait > 0:
		case n.inFlight.Load() == 0:
			n.listened.Store(false)
			if n.inFlight.Load() > 0 { // and may have found that somebody listens
				n.listened.Store(true)
			}
			continue
		case s.another(n, (*node).usable):
			s.challenge(n, heard)
			continue
		default:
			wait = silence
		}
		select {
		case <-s.ctx.Done():
			return
		case <-n.wake:
		case <-time.After(wait):
		}
	}
	if !n.usable() {
		n.rouse()
	}
}

// due is when a node will have been silent for too long. One that lives without
// answering works on what takes long, and is left alone for a while.
func (s *Set) due(n *node) time.Duration {
	heard, lived := time.Duration(n.heard.Load()), time.Duration(n.lived.Load())
	if lived > heard {
		return lived + s.settings.Open
	}
	return heard + silence
}

// answers reports whether a node is usable and not silent itself.
func (s *Set) answers(n *node) bool {
	return n.usable() && (n.inFlight.Load() == 0 || n.now() < s.due(n))
}

// challenge asks a node that has been silent since heard whether it is alive, and
// takes it out of use if that is not answered either. But only while another
// answers: where all are silent, one less helps nobody, and the last one may be
// slow, so that its answers are worth waiting for.
func (s *Set) challenge(n *node, heard time.Duration) {
	ctx, cancel := context.WithTimeout(s.ctx, n.patience())
	defer cancel()
	if s.settings.Alive(ctx, n.index) == nil {
		n.lived.Store(int64(n.now()))
		return
	}
	<-ctx.Done() // also after a refusal, which is no reason to ask all the time
	s.silencing.Lock()
	silent := time.Duration(n.heard.Load()) == heard && n.usable() && s.ctx.Err() == nil && s.another(n, s.answers)
	if silent {
		s.Blame(n.index, errSilent)
	}
	s.silencing.Unlock()
	if silent {
		n.opened.Add(1)
		s.abandon(n)
	}
}

// another reports whether some node other than n is so.
func (s *Set) another(n *node, is func(*node) bool) bool {
	for _, other := range s.nodes {
		if other != n && is(other) {
			return true
		}
	}
	return false
}
