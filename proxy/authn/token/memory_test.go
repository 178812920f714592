package token_test

import (
	"math"
	"testing"

	"github.com/edekd/edekd/proxy/authn/token"
	"github.com/edekd/edekd/proxy/authn/token/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) (here, there token.Store) {
		m := token.NewMemory()
		return m, m
	})
}

// Hadoop's first token has number 1, made with master key 2.
func TestMemoryCountsLikeHadoop(t *testing.T) {
	m := token.NewMemory()
	for _, want := range []int32{1, 2} {
		if n, err := m.Next(t.Context(), token.Sequences); n != want || err != nil {
			t.Errorf("sequence %d, %v, want %d", n, err, want)
		}
	}
	for _, want := range []int32{2, 3} {
		if n, err := m.Next(t.Context(), token.KeyIDs); n != want || err != nil {
			t.Errorf("key %d, %v, want %d", n, err, want)
		}
	}
}

func TestMemoryCounterGoesRound(t *testing.T) {
	m := token.NewMemoryAt(math.MaxInt32 - 1)
	for _, want := range []int32{math.MaxInt32, math.MinInt32, math.MinInt32 + 1} {
		if n, err := m.Next(t.Context(), token.Sequences); n != want || err != nil {
			t.Errorf("sequence %d, %v, want %d", n, err, want)
		}
	}
}
