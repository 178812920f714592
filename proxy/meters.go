package proxy

import (
	"strconv"

	"github.com/edekd/edekd/proxy/jmx"
)

// meters are the Java server's own, under /jmx, and one for the row that only we
// have.
type meters struct {
	admin, key, generate, decrypt, reencrypt, batch, decryptBatch, invalid, unauthenticated, unauthorized *jmx.Meter
}

func newMeters(r *jmx.Registry) meters {
	m := func(name string) *jmx.Meter { return r.Meter("hadoop.kms." + name + ".calls.meter") }
	return meters{m("admin"), m("key"), m("generate_eek"), m("decrypt_eek"), m("reencrypt_eek"),
		m("reencrypt_eek_batch"), m("decrypt_eek_batch"), m("invalid"), m("unauthenticated"), m("unauthorized")}
}

func statusLabel(status int) string {
	if status == 0 {
		return "other"
	}
	return strconv.Itoa(status)
}

// HTTPStats adds up the answers so far, for the bean that Hadoop has for a
// listener.
func (s *Server) HTTPStats() (h jmx.HTTPStats) {
	for row := range s.counts {
		for i, status := range statuses {
			n := s.counts[row][i].Get()
			h.Requests += n
			if class := status/100 - 1; class >= 0 {
				h.Responses[class] += n
			}
		}
	}
	return h
}

// count counts one answer.
func (s *Server) count(r row, status int) {
	for i, known := range statuses {
		if known == status || known == 0 {
			s.counts[r][i].Inc()
			break
		}
	}
	switch status {
	case 200, 201:
	case 401:
		s.meters.unauthenticated.Mark()
	default:
		s.meters.invalid.Mark()
	}
}
