package cache

import (
	"context"
	"slices"
	"sync"
)

// questionsMax bounds the questions for old facts that are under way at a
// provider.
const questionsMax = 2

// questions ask for facts of one provider's keys that are old. Each asks for many:
// for those that somebody waits for, and with them for others in use. So after an
// outage, when all facts are old, few questions renew them. What is wanted while
// as many questions as may be are under way waits for the next.
type questions struct {
	turns  chan struct{} // holds one for each question under way
	mu     sync.Mutex
	wants  map[*FarKey]*want // waited for, or asked for just now
	wanted []*FarKey         // those of them that no question has asked for yet
}

// want is a key's place in a question.
type want struct {
	asked bool          // a question is under way; guarded by questions.mu
	done  chan struct{} // closed when the key's part of it has been answered, or at its end
	err   error         // written before that
}

func newQuestions() questions {
	return questions{turns: make(chan struct{}, questionsMax), wants: map[*FarKey]*want{}}
}

// confirm waits until a question has asked for the facts of a key, and begins one
// when there is room for another. Only what becomes of the facts tells how the key
// is; an error says that the other KMS did not answer.
func (s *farSide) confirm(ctx context.Context, f *FarKey) error {
	ctx, cancel := f.Deadline(ctx)
	defer cancel()
	q := &f.provider.questions
	w := q.want(f)
	for {
		turn := q.turns
		if q.underWay(w) {
			turn = nil
		}
		select {
		case <-w.done:
			return w.err
		case <-ctx.Done():
			// Also where it does answer, but not as fast as it would have to for all that
			// is in use: what is ready had better be handed out than waited for.
			f.provider.mute.Store(true)
			return ctx.Err()
		case turn <- struct{}{}:
			list := s.gather(f.provider)
			if !s.begin(func() {
				defer func() { <-q.turns }()
				s.question(f.provider, list)
			}) {
				<-q.turns
				return s.life.Err()
			}
		}
	}
}

// want gives a key a place in the next question, if it is in none that is under
// way.
func (q *questions) want(f *FarKey) *want {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.wants[f]; w != nil {
		return w
	}
	q.wanted = append(q.wanted, f)
	w := &want{done: make(chan struct{})}
	q.wants[f] = w
	return w
}

func (q *questions) underWay(w *want) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return w.asked
}

// question asks for keys that were gathered, if there are any. It is nobody's: whoever
// began it may go away, and it waits for no turns but edekd's own. A key that fails it
// is looked for as long as one request may take; what is left then is wanted again, or
// polled.
func (s *farSide) question(p *farProvider, list []*FarKey) {
	if len(list) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(s.life, s.c.Timeout)
	defer cancel()
	p.questions.answer(list, s.compare(ctx, p, list))
}

// answer ends the wait for keys that a question has asked for.
func (q *questions) answer(list []*FarKey, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, f := range list {
		if w := q.wants[f]; w != nil && w.asked {
			delete(q.wants, f)
			w.err = err
			close(w.done)
		}
	}
}

// gather returns the keys of the next question: those that are wanted, and where
// they are few some whose facts are old and that will soon be.
func (s *farSide) gather(p *farProvider) []*FarKey {
	q := &p.questions
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.wanted), farPollBatch)
	if n == 0 {
		return nil
	}
	list := slices.Clone(q.wanted[:n])
	q.wanted = slices.Delete(q.wanted, 0, n)
	now := s.now()
	for _, f := range s.all() {
		if len(list) == farPollBatch {
			break
		}
		if known := f.facts.Load(); f.provider == p && known != nil && f.old(known, now) && f.inUse(now) && q.wants[f] == nil {
			q.wants[f] = &want{done: make(chan struct{})}
			list = append(list, f)
		}
	}
	for _, f := range list {
		q.wants[f].asked = true
	}
	return list
}
