package proxy

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"regexp"
	"testing"
	"time"

	"github.com/edekd/edekd/internal/race"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/token"
)

// everybody lets everybody act for everybody.
type everybody struct{}

func (everybody) Authorize(_, _, _ string, _ netip.Addr) error { return nil }

// Who acts for somebody else, or brings a delegation token, costs as little as
// who brings a cookie, once known.
func TestKnownSendersDoNotAllocate(t *testing.T) {
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := token.New(t.Context(), token.Config{Store: token.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	auth, err := authn.New(authn.Config{Secrets: ring, WriteError: WriteError, Tokens: tokens, ProxyUsers: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	k := newKMS(t, func(c *Config) { c.Authn = auth })
	k.create(t, "k1")
	var answer struct{ Token struct{ URLString string } }
	a := k.call(t, "GET", "/?op=GETDELEGATIONTOKEN&renewer=yarn", "")
	if err := json.Unmarshal([]byte(a.body), &answer); err != nil || answer.Token.URLString == "" {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	cookie := regexp.MustCompile(`Cookie: [^\r]*`)
	for _, op := range []string{"generate", "decrypt"} {
		raw := k.hotRequest(t, op)
		for name, raw := range map[string][]byte{
			"doAs":  bytes.Replace(raw, []byte("_eek?"), []byte("_eek?doAs=bob&"), 1),
			"token": cookie.ReplaceAll(raw, []byte("X-Hadoop-Delegation-Token: "+answer.Token.URLString)),
		} {
			ctx := hotContext(t, raw)
			body := bytes.Clone(ctx.Request.Body())
			handle := func() {
				copy(ctx.Request.Body(), body) // decoded in place
				ctx.Response.Reset()
				k.handle(ctx)
			}
			for range 100 { // the caches settle
				handle()
			}
			if ctx.Response.StatusCode() != 200 || len(ctx.Response.Header.Peek("Set-Cookie")) > 0 {
				t.Fatalf("%s by %s: %d %s", op, name, ctx.Response.StatusCode(), ctx.Response.Body())
			}
			if n := testing.AllocsPerRun(2000, handle); n != 0 && !race.Enabled {
				t.Errorf("%s by %s: %v allocations per request", op, name, n)
			}
		}
	}
}
