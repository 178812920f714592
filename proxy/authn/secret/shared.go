package secret

import (
	"bytes"
	"errors"
)

// NewShared makes a ring whose secrets come from elsewhere (`zookeeper`): from a
// place where all servers agree on them, and on when they roll. previous is
// empty where there is none. The ring keeps copies.
func NewShared(current, previous []byte) (*Ring, error) {
	if len(current) == 0 {
		return nil, errors.New("signing secrets: a shared secret is empty")
	}
	r := new(Ring)
	r.live.Store(&generation{current: new(generation).key(current), previous: new(generation).key(previous)})
	return r, nil
}

// Replace gives a ring of NewShared the secrets of the present. One that it had
// already, be it as the other of the two, stays the same Key, so that what was
// verified under it remains so; a Key that is in neither place has ended when
// Replace returns. An empty current secret changes nothing.
func (r *Ring) Replace(current, previous []byte) {
	if len(current) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.live.Load()
	r.live.Store(&generation{current: old.key(current), previous: old.key(previous)})
}

// key returns the generation's Key with the given bytes, a new one if it has
// none, nil if there are no bytes.
func (g *generation) key(b []byte) *Key {
	if len(b) == 0 {
		return nil
	}
	for _, k := range []*Key{g.current, g.previous} {
		if k != nil && Equal(k.bytes, b) {
			return k
		}
	}
	return newKey(bytes.Clone(b))
}
