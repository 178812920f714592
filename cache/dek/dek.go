// Package dek remembers data keys that a server behind has opened, found again
// by the EDEK they came from.
//
// It holds key bytes of other people's files. So: a hit needs the whole of key
// name, version, IV and wrapped key to be equal, not their hash; nothing is
// older than Config.MaxAge, used or not; what is in a table for longer than
// that, what is dropped, and what has to make room, is zeroed at that moment.
// Whether the one who asks may have the DEK is for the caller to know, before
// every hit.
//
// The table is our own rather than ristretto's, because ristretto cannot keep
// two of these promises: it tells of an entry that went while readers may still
// hold it, so that bytes can only be zeroed under their eyes or left to the
// garbage collector, and it may take in an entry late, after the Drop that
// should have caught it. Here readers copy under the lock of one of many shards,
// and zeroing takes the same lock: there is no reader left then. What ristretto
// is good at is kept: DEKs that were asked for once do not push out those that
// were asked for again.
package dek

import (
	"context"
	"encoding/binary"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/edek"
)

const (
	shards = 64
	epochs = 4096
	// entryBytes is what a DEK costs beside its key's name: the entry and its
	// place in the map with the map's spare room.
	entryBytes = int64(unsafe.Sizeof(entry{})) + 48
)

// Config bounds a Cache.
type Config struct {
	Bytes   int64         // memory
	MaxAge  time.Duration // of a DEK, since the request was sent that opened it
	Metrics *metrics.Set  // where hits, misses and memory are counted
}

// Mark is a point in the history of a key; see Cache.Mark.
type Mark struct {
	epoch uint64
	at    time.Duration
}

// Epoch is a number that changes with every Drop of the key.
func (m Mark) Epoch() uint64 { return m.epoch }

// Cache remembers DEKs. It is safe for concurrent use. Names may alias reused
// buffers: what is kept is copied.
type Cache struct {
	maxAge    time.Duration
	start     time.Time
	seed      maphash.Seed
	epochs    [epochs]atomic.Uint64 // of the keys with one hash; a neighbour's change costs a key its DEKs
	shards    [shards]shard
	hit, miss *metrics.Counter
	cancel    context.CancelFunc
	swept     sync.WaitGroup
}

// New makes a cache and starts the goroutine that zeroes what is too old.
// Close ends it.
func New(c Config) *Cache {
	k := &Cache{maxAge: c.MaxAge, start: time.Now(), seed: maphash.MakeSeed(),
		hit:  c.Metrics.NewCounter(`edekd_dek_hits_total`),
		miss: c.Metrics.NewCounter(`edekd_dek_misses_total`)}
	c.Metrics.NewGauge("edekd_dek_bytes", func() float64 { return float64(k.Bytes()) })
	for i := range k.shards {
		k.shards[i].init(c.Bytes / shards)
	}
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	k.swept.Go(func() {
		tick := time.NewTicker(max(c.MaxAge/16, 10*time.Millisecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				k.sweep(func(e *entry) bool { return k.old(e) })
			}
		}
	})
	return k
}

// Close zeroes all DEKs and remembers none any more.
func (k *Cache) Close() {
	k.cancel()
	k.swept.Wait()
	for i := range k.shards {
		s := &k.shards[i]
		s.Lock()
		s.room = 0
		s.Unlock()
	}
	k.sweep(func(*entry) bool { return true })
}

// Mark returns the present point in the history of a key, and the time. Take it
// before the request is sent whose answer is to be Put.
func (k *Cache) Mark(name string) Mark {
	return Mark{k.epoch(name).Load(), time.Since(k.start)}
}

// AppendDEK appends the DEK of an EDEK to dst, if it is known. The caller zeroes
// what was appended.
func (k *Cache) AppendDEK(dst []byte, name string, e *edek.EDEK) ([]byte, bool) {
	hash := k.hash(name, e)
	s := &k.shards[hash%shards]
	epoch := k.epoch(name)
	s.Lock()
	defer s.Unlock()
	found := s.entries[hash]
	if found == nil || !found.is(name, e) {
		k.miss.Inc()
		return dst, false
	}
	if found.epoch != epoch.Load() || k.old(found) {
		s.remove(found)
		k.miss.Inc()
		return dst, false
	}
	s.touch(found)
	k.hit.Inc()
	return append(dst, found.dek[:found.size]...), true
}

// Put remembers a DEK that was opened by a request sent at mark. It is copied;
// the caller goes on owning it. After a Drop since mark, and when it is longer
// than any DEK is, nothing is remembered.
func (k *Cache) Put(name string, e *edek.EDEK, dek []byte, mark Mark) {
	if len(dek) > edek.MaxDEKSize || len(dek) == 0 {
		return
	}
	hash := k.hash(name, e)
	s := &k.shards[hash%shards]
	s.Lock()
	defer s.Unlock()
	if k.epoch(name).Load() != mark.epoch {
		return
	}
	if there := s.entries[hash]; there != nil {
		if there.is(name, e) && there.born > mark.at {
			return
		}
		s.remove(there)
	}
	cost := entryBytes + int64(len(name))
	if cost > s.room {
		return
	}
	for s.bytes+cost > s.room {
		s.remove(s.coldest())
	}
	n := &entry{hash: hash, name: strings.Clone(name), edek: *e, epoch: mark.epoch, born: mark.at, size: uint8(len(dek))}
	copy(n.dek[:], dek)
	s.entries[hash] = n
	s.bytes += cost
	s.once.push(n)
}

// Forget is Drop without a search for what is to be zeroed: nothing of the key is
// found any more, and its bytes are zeroed by their age or for others' room.
func (k *Cache) Forget(name string) { k.epoch(name).Add(1) }

// Drop zeroes all DEKs of a key. None that was asked for before the call is
// found after it.
func (k *Cache) Drop(name string) {
	k.epoch(name).Add(1)
	k.sweep(func(e *entry) bool { return e.name == name })
}

// Bytes returns the memory in use, never more than Config.Bytes.
func (k *Cache) Bytes() (sum int64) {
	for i := range k.shards {
		s := &k.shards[i]
		s.Lock()
		sum += s.bytes
		s.Unlock()
	}
	return sum
}

func (k *Cache) old(e *entry) bool { return time.Since(k.start)-e.born >= k.maxAge }

func (k *Cache) epoch(name string) *atomic.Uint64 {
	return &k.epochs[maphash.String(k.seed, name)%epochs]
}

// hash is keyed: nobody can choose EDEKs that push out others.
func (k *Cache) hash(name string, e *edek.EDEK) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	h.Write(e.IV[:])
	h.Write(e.Wrapped())
	var version [4]byte
	binary.LittleEndian.PutUint32(version[:], uint32(e.Version()))
	h.Write(version[:])
	h.WriteString(name)
	return h.Sum64()
}

// sweep zeroes the entries that are chosen.
func (k *Cache) sweep(chosen func(*entry) bool) {
	for i := range k.shards {
		s := &k.shards[i]
		s.Lock()
		for _, e := range s.entries {
			if chosen(e) {
				s.remove(e)
			}
		}
		s.Unlock()
	}
}
