package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/edekd/edekd/proxy/authn/secret"
)

const (
	// keysKnown bounds the master keys remembered: servers that share a store make
	// one a day each and keep them for eight days.
	keysKnown = 1024
	// keyBelieved is how long a key is taken for the one with its ID. Later a
	// password that is not made with it has it read again: the IDs begin anew when
	// somebody empties the store.
	keyBelieved = 10 * time.Second
)

// keyring remembers the master keys that presented tokens were made with. It
// proves only that servers of this store made a token, not that it is alive.
type keyring struct {
	mu    sync.Mutex
	known map[int32]knownKey

	reads singleflight.Group
	lists lists
}

type knownKey struct {
	key *MasterKey
	at  time.Time // when it was read
}

func newKeyring() *keyring {
	return &keyring{known: make(map[int32]knownKey), lists: lists{turn: make(chan struct{}, 1)}}
}

// genuine reports whether a token's password was made with the master key that
// the token names. Anybody can make up tokens: this keeps them from being looked
// up. Of each key that there is, the store is asked once, and after keyBelieved
// again; of those that there are not, once for all who ask meanwhile. A key that
// another server made is known at once.
func (m *Manager) genuine(ctx context.Context, t *Token, id *Identifier) (bool, error) {
	newHash := hashOfSize(len(t.Password)) // the algorithm may have been another one then
	if newHash == nil {
		return false, nil
	}
	made := func(k *MasterKey) bool { return secret.Equal(password(newHash, k, t.Identifier), t.Password) }
	if k := m.key.Load(); k.ID == id.KeyID && made(k) {
		return true, nil
	}
	m.keys.mu.Lock()
	k, known := m.keys.known[id.KeyID]
	m.keys.mu.Unlock()
	if known {
		if made(k.key) {
			return true, nil
		}
		if m.now().Sub(k.at).Abs() <= keyBelieved {
			return false, nil
		}
	} else if exists, err := m.keyExists(ctx, id.KeyID); !exists {
		return false, err
	}
	key, err := m.readKey(ctx, id.KeyID)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil && made(key), err
}

func (m *Manager) keyExists(ctx context.Context, id int32) (bool, error) {
	ids, err := m.keys.lists.next(ctx, func() ([]int32, error) {
		ctx, cancel := context.WithTimeout(m.ctx, storeTimeout)
		defer cancel()
		return m.store.KeyIDs(ctx)
	})
	return slices.Contains(ids, id), err
}

// readKey reads a key and remembers it.
func (m *Manager) readKey(ctx context.Context, id int32) (*MasterKey, error) {
	read, err, _ := m.keys.reads.Do(strconv.Itoa(int(id)), func() (any, error) {
		key, err := m.store.Key(ctx, id)
		m.keys.mu.Lock()
		defer m.keys.mu.Unlock()
		if err != nil {
			if errors.Is(err, ErrNotFound) {
				delete(m.keys.known, id)
			}
			return nil, fmt.Errorf("verify a delegation token: %w", err)
		}
		if _, known := m.keys.known[id]; !known && len(m.keys.known) >= keysKnown {
			for other := range m.keys.known {
				delete(m.keys.known, other)
				break
			}
		}
		m.keys.known[id] = knownKey{key, m.now()}
		return key, nil
	})
	if err != nil {
		return nil, err
	}
	return read.(*MasterKey), nil
}

// lists lets many share one answer that is not older than any of their
// questions: at most one list is being made and at most one waits for its turn.
type lists struct {
	turn chan struct{} // holds one while a list is made

	mu   sync.Mutex
	soon *list // not begun
}

type list struct {
	done chan struct{}
	ids  []int32
	err  error
}

// next returns a list of which the making begins after the call.
func (l *lists) next(ctx context.Context, do func() ([]int32, error)) ([]int32, error) {
	l.mu.Lock()
	it := l.soon
	first := it == nil
	if first {
		it = &list{done: make(chan struct{})}
		l.soon = it
	}
	l.mu.Unlock()
	if first {
		l.turn <- struct{}{}
		defer func() { <-l.turn }()
		defer close(it.done)
		l.mu.Lock()
		l.soon = nil
		l.mu.Unlock()
		it.ids, it.err = do()
		return it.ids, it.err
	}
	select {
	case <-it.done:
		return it.ids, it.err
	case <-ctx.Done():
		return nil, fmt.Errorf("list the master keys: %w", ctx.Err())
	}
}
