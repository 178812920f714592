package proxy

import (
	"strings"
	"testing"
)

// Who could not prove who they are learns nothing of it while that cannot be
// written down, and the node says that it is not ready.
func TestUnauditedRefusal(t *testing.T) {
	k, disk := newKMSWithSink(t)
	disk.full.Store(true)
	c := k.dial(t)
	c.send(t, requestText("GET", "/kms/v1/keys/names", ""))
	a := c.answer(t, "GET")
	contains(t, remote(t, a, 500, classIO), unauditedText)
	if got := a.Header.Get("WWW-Authenticate") + a.Header.Get("Set-Cookie"); got != "" || a.Header.Get("Expires") == "" {
		t.Errorf("headers %v", a.Header)
	}
	if a := k.raw(t, requestText("GET", "/readyz", ""), 1)[0]; a.StatusCode != 503 {
		t.Errorf("/readyz says %d", a.StatusCode)
	}
	disk.full.Store(false)
}

func TestLogsShowNoTokens(t *testing.T) {
	access := &lockedBuffer{}
	k := newKMS(t, func(c *Config) { c.AccessLog = access })
	const target = "/kms/v1/keys/names?%64ELEGATION=hidden1&token=hidden2&shown=yes"
	text := strings.Replace(requestText("GET", target, ""), "\r\n\r\n", "\r\nReferer: http://h/?token=hidden3\r\n\r\n", 1)
	k.raw(t, text, 1)
	for name, log := range map[string]string{"access": access.String(), "audit": k.closedAudit(t), "own": k.log.String()} {
		if strings.Contains(log, "hidden") || name != "own" && !strings.Contains(log, "%64ELEGATION=***&token=***&shown=yes") {
			t.Errorf("%s log: %s", name, log)
		}
	}
}
