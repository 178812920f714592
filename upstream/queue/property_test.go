package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// model drives a queue step by step, from one goroutine, and holds it to its
// promises after each.
type model struct {
	q      *Queue
	places int
	held   []held
	lines  map[[2]string][]*waiter // by caller and key, in order of arrival
	let    map[string]int          // by caller: calls let in
	broken string                  // the first promise that was
}

type held struct {
	user  string
	place Place
}

type waiter struct {
	call *party
	let  map[string]int // the model's when it came
	full bool           // its caller had all that he may have, some time since
}

func (m *model) breaks(format string, args ...any) {
	if m.broken == "" {
		m.broken = fmt.Sprintf(format, args...)
	}
}

func (m *model) arrive(user, key string, patience time.Duration) {
	who := Caller{User: user}
	if place, ok := m.q.Take(who); ok {
		m.entered(user, place)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.q.mu.Lock()
	call, err := m.q.join(ctx, m.q.caller(who), key, m.places, time.Now())
	m.q.mu.Unlock()
	switch {
	case err == nil:
		let := maps.Clone(m.let)
		id := [2]string{user, key}
		m.lines[id] = append(m.lines[id], &waiter{call: call, let: let})
	case (err == ErrNone) != (m.places == 0) || err == ErrFull && m.waiting() < perPlace*m.places:
		m.breaks("%v with %d places and %d waiting", err, m.places, m.waiting())
	}
}

func (m *model) entered(user string, place Place) {
	if len(m.held) >= m.places || m.holds(user) >= m.part() {
		m.breaks("%s is let in beside %d, %d of them his, with %d places", user, len(m.held), m.holds(user), m.places)
	}
	m.held = append(m.held, held{user, place})
	m.let[user]++
}

func (m *model) waiting() (n int) {
	for _, line := range m.lines {
		n += len(line)
	}
	return n
}

func (m *model) holds(user string) (n int) {
	for _, h := range m.held {
		if h.user == user {
			n++
		}
	}
	return n
}

func (m *model) part() int { return max(1, m.places-(m.places+3)/4) }

// look takes in what the last step did to those who wait.
func (m *model) look(what string) {
	for id, line := range m.lines {
		for i := 0; i < len(line); i++ {
			select {
			case got := <-line[i].call.done:
				if got.err == nil {
					if i > 0 {
						m.breaks("%s: %v is served out of order", what, id)
					}
					m.entered(id[0], got.place)
				} else if got.err == ErrFull && i != len(line)-1 {
					m.breaks("%s: not the newest of %v gives way", what, id)
				}
				line = slices.Delete(line, i, i+1)
				i--
			default:
			}
		}
		m.lines[id] = line
	}
	if n := m.waiting(); n != m.q.Status().Waiting || n > 0 && m.places == 0 {
		m.breaks("%s: %d wait, for %d places, by the queue %d", what, n, m.places, m.q.Status().Waiting)
	}
	for id, line := range m.lines {
		own := id[0]
		full := m.holds(own) >= m.part()
		if len(line) > 0 && !full && len(m.held) < m.places {
			m.breaks("%s: %v waits with places free", what, id)
		}
		for _, w := range line {
			if w.full = w.full || full; w.full {
				continue
			}
			for user, n := range m.let {
				if n-w.let[user] > m.let[own]-w.let[own]+1 {
					m.breaks("%s: %s had %d turns while %s had %d", what, user, n-w.let[user], own, m.let[own]-w.let[own])
				}
			}
		}
	}
}

func (m *model) leave(i int) {
	place := m.held[i].place
	m.held = slices.Delete(m.held, i, i+1)
	place.Leave()
}

type step struct {
	what        string
	caller, key string
	n           int
}

func (m *model) do(s step) {
	switch s.what {
	case "arrive":
		m.arrive(s.caller, s.key, time.Duration(s.n)*time.Millisecond)
	case "flood":
		for range s.n % 50 {
			m.arrive("0", "0", time.Hour)
			m.look(s.what)
		}
	case "leave":
		if len(m.held) > 0 {
			m.leave(s.n % len(m.held))
		}
	case "give up":
		id := [2]string{s.caller, s.key}
		if line := m.lines[id]; len(line) > 0 {
			i := s.n % len(line)
			m.q.mu.Lock()
			m.q.remove(line[i].call)
			m.q.mu.Unlock()
			m.lines[id] = slices.Delete(line, i, i+1)
		}
	case "turn":
		m.places = s.n % 7
		m.q.Turned()
	case "time":
		time.Sleep(time.Duration(s.n) * time.Millisecond)
	}
	m.look(s.what)
}

// Whatever comes and goes: never more are under way than there are places, who
// calls takes turns, each line is served in order, no place stays free that
// somebody may have, and who waits and does not give up gets an answer.
func TestTheQueueKeepsItsPromises(t *testing.T) {
	name := rapid.SampledFrom([]string{"0", "1", "2", "3", "4"})
	one := rapid.Custom(func(r *rapid.T) step {
		what := rapid.SampledFrom([]string{"arrive", "arrive", "arrive", "flood", "leave", "leave", "leave", "give up", "turn", "time"})
		return step{what.Draw(r, "what"), name.Draw(r, "caller"), name.Draw(r, "key"), rapid.IntRange(0, 500).Draw(r, "n")}
	})
	rapid.Check(t, func(r *rapid.T) {
		steps := rapid.SliceOfN(one, 1, 300).Draw(r, "steps")
		m := &model{places: 2, lines: map[[2]string][]*waiter{}, let: map[string]int{}}
		m.q = New(func() int { return m.places })
		synctest.Test(t, func(t *testing.T) {
			for _, s := range steps {
				m.do(s)
			}
			m.places = 1
			for m.q.Turned(); len(m.held) > 0; {
				m.leave(0)
				m.look("the end")
			}
			if n := m.waiting(); n > 0 {
				m.breaks("%d wait for ever", n)
			}
		})
		if m.broken != "" {
			r.Fatal(m.broken)
		}
		wantEmpty(t, m.q)
	})
}
