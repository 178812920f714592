package spnego_test

import (
	"testing"

	"github.com/edekd/edekd/internal/kdc"
	"github.com/edekd/edekd/proxy/authn/spnego"
)

// BenchmarkAccept measures what a client without a cookie costs, mutual
// authentication included.
func BenchmarkAccept(b *testing.B) {
	realm := kdc.Start(b, home)
	realm.Add("alice")
	realm.AddKeys("HTTP/sha1", kdc.AES256SHA1)
	realm.AddKeys("HTTP/sha2", kdc.AES256SHA2)
	realm.SessionKeys("HTTP/sha2", kdc.AES256SHA2)
	acceptor := newAcceptor(b, spnego.Config{Keytab: realm.Keytab("HTTP/sha1", "HTTP/sha2"), Principal: "*", Krb5Conf: realm.Config})
	f := func(name, service string, batch int) {
		m := newMinter(b, realm, "alice", service)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			tokens := make([][]byte, 0, batch)
			accepted := 0
			for i := range b.N {
				if i%batch == 0 {
					b.StopTimer()
					tokens = tokens[:0]
					for range batch {
						tokens = append(tokens, spnegoToken(m.token(), derKrb5))
					}
					b.StartTimer()
				}
				if _, _, err := acceptor.Accept(tokens[i%batch]); err == nil {
					accepted++
				}
			}
			if accepted != b.N {
				b.Errorf("%d of %d accepted", accepted, b.N)
			}
		})
	}
	f("aes256-sha1", "HTTP/sha1", 1000)
	f("aes256-sha2", "HTTP/sha2", 1000)
}
