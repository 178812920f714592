package secret

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// randomSize is the length of a random secret, that of hadoop-auth's
// RandomSignerSecretProvider.
const randomSize = 32

// Ring is the set of live secrets: one that signs, and possibly an older one
// that still verifies.
type Ring struct {
	live atomic.Pointer[generation]

	mu       sync.Mutex    // held while a new generation is made
	file     string        // where the secret comes from, empty for random ones
	validity time.Duration // how long a random secret signs
}

// generation is immutable once published.
type generation struct {
	current  *Key
	previous *Key      // nil when there is none
	until    time.Time // when the next generation is due; zero: never
}

// NewRandom makes a ring of random secrets (`random`, Hadoop's default for
// KMS). A secret signs for one validity period, which is also how long a
// cookie lives, and verifies for one more. Only this process knows them:
// cookies do not survive a restart and are worthless to other servers.
func NewRandom(validity time.Duration, now time.Time) (*Ring, error) {
	if validity <= 0 {
		return nil, fmt.Errorf("signing secrets: validity %v is not positive: set token.validity to a number of seconds above 0", validity)
	}
	key, err := randomKey()
	if err != nil {
		return nil, err
	}
	r := &Ring{validity: validity}
	r.live.Store(&generation{current: key, until: now.Add(validity)})
	return r, nil
}

// OpenFile makes a ring whose one secret is the content of a file (`file`),
// trailing newline included, so that servers that share the file accept each
// other's cookies. It reads the content as Hadoop does, see decodeAsJava.
//
// Unlike Hadoop it never falls back to random secrets: servers behind one
// address that silently disagree send clients in circles.
func OpenFile(path string) (*Ring, error) {
	key, err := fileKey(path)
	if err != nil {
		return nil, err
	}
	r := &Ring{file: path}
	r.live.Store(&generation{current: key})
	return r, nil
}

// Live returns the secret that signs at the given time and the one before it,
// nil if there is none. It rolls random secrets that are due. When no random
// numbers are to be had for that, the old secrets go on; the next call tries
// again.
func (r *Ring) Live(now time.Time) (current, previous *Key) {
	g := r.live.Load()
	if !g.until.IsZero() && !now.Before(g.until) {
		g = r.roll(now)
	}
	return g.current, g.previous
}

func (r *Ring) roll(now time.Time) *generation {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.live.Load()
	if now.Before(g.until) {
		return g
	}
	key, err := randomKey()
	if err != nil {
		return g
	}
	next := &generation{current: key, previous: g.current}
	periods := now.Sub(g.until)/r.validity + 1
	if periods > 1 {
		// Nobody asked for a whole period: the secret before this one would
		// be one that signed nothing.
		next.previous = nil
	}
	next.until = g.until.Add(periods * r.validity)
	r.live.Store(next)
	return next
}

// Reload reads the file again. A changed content takes the place of the old
// secret at once: cookies signed with the old one end. When the file cannot
// be used, the old secret stays and Reload says why. Random secrets have
// nothing to reload.
func (r *Ring) Reload() error {
	if r.file == "" {
		return nil
	}
	key, err := fileKey(r.file)
	if err != nil {
		return fmt.Errorf("the old secret stays in use: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !Equal(r.live.Load().current.bytes, key.bytes) {
		r.live.Store(&generation{current: key})
	}
	return nil
}

func randomKey() (*Key, error) {
	b := make([]byte, randomSize)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("make a signing secret: %w", err)
	}
	return newKey(b), nil
}

func fileKey(path string) (*Key, error) {
	if path == "" {
		return nil, errors.New("signing secret: no file is named: set signature.secret.file, or signer.secret.provider to random")
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("signing secret: %w: make the file readable for this user", err)
	}
	defer clear(raw)
	if len(raw) == 0 {
		return nil, fmt.Errorf("signing secret: %s is empty: fill it with random text, the same on every server", path)
	}
	return newKey(decodeAsJava(raw)), nil
}
