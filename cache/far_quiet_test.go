package cache

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/edek"
)

// closed is a provider that lets callers have what they want and edekd itself
// nothing but metadata.
type closed struct{ *distant }

var errClosed = &edek.Foreign{Status: 403, Class: "org.apache.hadoop.security.authorize.AuthorizationException", Text: "no"}

func (c closed) Generate(ctx context.Context, who edek.Caller, name string, n int) ([]edek.EDEK, error) {
	if who.User == "" {
		return nil, errClosed
	}
	return c.distant.Generate(ctx, who, name, n)
}

func (closed) Copy(context.Context, string) (*edek.KeyVersion, error) { return nil, errClosed }

// What edekd may not do for itself is said once a minute, however often it is tried.
func TestMissingRightsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		k := newCache(t, closed{&distant{asked: map[string]int{}}}, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Minute, Far: FarConfig{
			Poll: 24 * time.Hour, Timeout: 10 * time.Second, Grant: time.Minute, DEKBytes: 1 << 20, DEKAge: time.Hour, Copies: true,
			Ring: ring.Config{Size: 1000, LowWatermark: 0.3, Cover: -1}, Log: slog.New(slog.NewTextHandler(&log, nil))}})
		_, far, err := k.Metadata(t.Context(), "k")
		if err != nil || far == nil {
			t.Fatal(far, err)
		}
		sample, _ := edek.NewEDEK(0, make([]byte, 16), make([]byte, 16))
		wish, wanted := k.far.copies.Want("k", 0)
		if !wanted {
			t.Fatal("no copy is wanted")
		}
		for second := range 150 {
			if _, err := k.far.fetch(t.Context(), "k", 1); err == nil {
				t.Fatal("fetched without the right")
			}
			far.fetchCopy(wish, &sample, make([]byte, 16), far.moment())
			time.Sleep(time.Second)
			for _, line := range []string{"may not have encrypted keys made ahead", "cannot be copied"} {
				if n, want := strings.Count(log.String(), line), second/60+1; n != want {
					t.Fatalf("%q: %d times after %d s, want %d", line, n, second, want)
				}
			}
		}
	})
}
