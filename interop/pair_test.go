package interop

import (
	"testing"

	"github.com/edekd/edekd/internal/zkserver"
)

// Two nodes under names and principals of their own, the client balancing between
// them, and the nodes sharing secrets and tokens.
func TestLoadBalancingClientOfAKerberizedPair(t *testing.T) {
	realm := startRealm(t)
	zk := zkserver.Start(t, zkserver.Options{})
	a := StartKerberizedEdekd(t, realm, sharing(zk)...)
	b := StartKerberizedEdekd(t, realm, sharing(zk)...)
	realm.createOnEach(t, a.Addr, b.Addr)
	EachHadoop(t, func(t *testing.T, hadoop string) {
		port, shims := StartShims(t, a.Addr, "127.0.0.1", "127.0.0.2")
		shims[1].Lead(b.Addr)
		seen := make([]int, len(shims))
		asked := func(to string) {
			for i, shim := range shims {
				n := shim.Requests("POST /kms/v1/keyversion/kerberized%400/_eek?eek_op=decrypt")
				if n == seen[i] && to != "" {
					t.Errorf("host %d was not asked to %s", i+1, to)
				}
				seen[i] = n
			}
		}
		program := realm.client(t, hadoop, "KerberizedPair", port, testRealm, realm.users)
		RunChecks(t, program, map[string]func(){
			"both were asked with tickets": func() { asked("decrypt with a ticket") },
			"both were asked with tokens":  func() { asked("decrypt with a token") },
			"the second stops":             func() { b.Stop(t) },
			"the second is back, the first stops": func() {
				b.Start(t)
				a.Stop(t)
			},
			"the first is back, the second stops": func() {
				a.Start(t)
				b.Stop(t)
			},
			"the second is back": func() {
				b.Start(t)
				asked("")
			},
		},
			"tickets-for-both-hosts", "a-cookie-of-one-host-opens-the-other", "one-host-is-enough",
			"a-token-is-used-at-the-other-host", "a-token-for-somebody-is-used-at-the-other-host",
			"a-token-is-renewed-at-the-other-host", "a-service-acts-for-a-user-at-the-other-host",
			"a-token-is-cancelled-at-the-other-host", "a-cancelled-token-is-refused-there",
			"a-cancelled-token-is-refused-where-it-was-issued", "another-token-still-counts",
			"a-token-at-both-hosts", "a-token-is-renewed-at-both-hosts", "a-cancelled-token-opens-nothing",
		)
	})
}
