package spnego

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestReplaysMemory(t *testing.T) {
	const life = time.Minute
	r := newReplays(4 * shards)
	now := time.Hour
	next := uint64(0)
	authenticator := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	fill := func(client string) (fresh int) {
		for range 100 * shards {
			next++
			isFresh, full := r.add(authenticator(next), client, now, life)
			if isFresh == full {
				t.Fatalf("fresh %v and full %v", isFresh, full)
			}
			if isFresh {
				fresh++
			}
		}
		return fresh
	}
	// One client takes half, two take all, a third finds no room.
	if got := fill("alice@R"); got != 2*shards {
		t.Errorf("one client made %d entries, want %d", got, 2*shards)
	}
	if got := fill("bob@R"); got != 2*shards {
		t.Errorf("the second client made %d entries, want %d", got, 2*shards)
	}
	if got := fill("carol@R"); got != 0 {
		t.Errorf("the third client made %d entries", got)
	}
	if got := r.size(); got != 4*shards {
		t.Errorf("%d entries, want %d", got, 4*shards)
	}
	// What is known stays known while it is full, and up to its time.
	now += life
	if fresh, full := r.add(authenticator(1), "alice@R", now, life); fresh || full {
		t.Errorf("the first authenticator again: fresh %v, full %v", fresh, full)
	}
	if got := fill("carol@R"); got != 0 {
		t.Errorf("the third client made %d entries before the others' time was over", got)
	}
	now += time.Nanosecond
	if got := fill("carol@R"); got != 2*shards {
		t.Errorf("the third client made %d entries when there was room again, want %d", got, 2*shards)
	}
	if got := r.size(); got != 2*shards {
		t.Errorf("%d entries, want %d", got, 2*shards)
	}
}
