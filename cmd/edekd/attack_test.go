package main

import "testing"

// TestAttacks does what somebody does who wants to be another, to have key
// bytes, to delete keys or to lock others out: each test is one way to try. The
// server is the built one, with a real KDC; after each way nothing must have
// changed, and all logs must be whole at the end.
func TestAttacks(t *testing.T) {
	t.Parallel()
	a := newArena(t)
	slow := a.beginSlowly(t)
	for _, attack := range []struct {
		name string
		f    func(*testing.T, *arena)
	}{
		{"forged and truncated cookies", forgedCookies},
		{"cookies of another type", cookiesOfAnotherType},
		{"expired and future cookies", expiredCookies},
		{"forged tokens, cancelled and renewed by others", forgedTokens},
		{"expired tokens", expiredTokens},
		{"replayed tickets", replayedTickets},
		{"damaged tickets", damagedTickets},
		{"borrowed tickets", borrowedTickets},
		{"a rule that yields an empty user", emptyUser},
		{"exhausting tickets", exhaustingTickets},
		{"smuggled users", smuggledUsers},
		{"false addresses", falseAddresses},
		{"pages without authentication", unauthenticatedPages},
		{"path tricks around the rules", pathTricks},
		{"keys in the place of others", shadowKeys},
		{"nasty user names", nastyUsers},
		{"log injection", logInjection},
		{"header smuggling", headerSmuggling},
		{"two credentials", twoCredentials},
		{"huge headers", hugeHeaders},
		{"bodies of nobody", bodiesOfNobody},
	} {
		t.Run(attack.name, func(t *testing.T) {
			attack.f(t, a)
			a.unharmed(t)
		})
	}
	t.Run("slow senders", func(t *testing.T) {
		slow.end(t)
		a.unharmed(t)
	})
	t.Run("logs", a.logsAreWhole)
}
