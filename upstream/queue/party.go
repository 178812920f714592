package queue

import "container/list"

// party is one who takes turns with others of its kind: a caller among callers, a
// key among the keys of its caller, a call among the calls for its key, whose turn
// comes once. The queue's mutex is held for all that is done with it.
type party struct {
	above   *party        // nil for the party of all callers
	waiting int           // calls
	turns   list.List     // of *party: those below that have calls waiting, who is next first
	turn    *list.Element // in above.turns, while it has calls waiting

	held int               // of a caller: places that his calls have
	keys map[string]*party // of a caller: his keys with calls waiting

	key string // of a key

	done chan outcome // of a call: gets how its waiting ends; of capacity one
}

type outcome struct {
	place Place
	err   error
}

// add lets a new call wait, behind all others of its key.
func (p *party) add() {
	for ; p.above != nil; p = p.above {
		if p.waiting++; p.waiting == 1 {
			p.turn = p.above.turns.PushBack(p)
		}
	}
	p.waiting++
}

// drop takes a call out.
func (p *party) drop() {
	for ; p.above != nil; p = p.above {
		if p.waiting--; p.waiting == 0 {
			p.above.turns.Remove(p.turn)
		}
	}
	p.waiting--
}

// next is the one below whose turn it is; there must be one.
func (p *party) next() *party { return p.turns.Front().Value.(*party) }

// pass ends the party's turn, if it still has calls waiting.
func (p *party) pass() {
	if p.waiting > 0 {
		p.above.turns.MoveToBack(p.turn)
	}
}

// most is the one below with most calls waiting; there must be one.
func (p *party) most() (most *party) {
	for turn := p.turns.Front(); turn != nil; turn = turn.Next() {
		if one := turn.Value.(*party); most == nil || one.waiting > most.waiting {
			most = one
		}
	}
	return most
}

// turnsUntilNew is how many calls will have been served, if no others come, when
// one is that joins this key's now.
func (p *party) turnsUntilNew() int {
	turns := p.waiting + 1
	for ; p.above != nil; p = p.above {
		own := turns
		for turn := p.above.turns.Front(); turn != nil; turn = turn.Next() {
			if one := turn.Value.(*party); one != p {
				turns += min(one.waiting, own)
			}
		}
	}
	return turns
}
