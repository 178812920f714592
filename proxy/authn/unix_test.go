package authn

import (
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/edekd/edekd/hadoop/proxyusers"
)

// onSocket is a connection of this very process over a Unix socket.
func onSocket(t *testing.T, users map[uint32]string) (client, server net.Conn) {
	t.Helper()
	a := newServer(t, func(cfg *Config) { cfg.Users = users })
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := a.Listener(socket)
	t.Cleanup(func() { l.Close() })
	if client, err = net.Dial("unix", path); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// policyFunc is a ProxyUsers.
type policyFunc func(real, full, as string, addr netip.Addr) error

func (f policyFunc) Authorize(real, full, as string, addr netip.Addr) error {
	return f(real, full, as, addr)
}

func TestListenerTellsTheProcess(t *testing.T) {
	f := func(users map[uint32]string, known bool) {
		t.Helper()
		client, server := onSocket(t, users)
		p, ok := server.RemoteAddr().(*Process)
		if !ok || p.UID != uint32(os.Getuid()) || p.PID != int32(os.Getpid()) || p.Known() != known || p.Network() != "unix" {
			t.Fatalf("%+v", server.RemoteAddr())
		}
		if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	}
	me := uint32(os.Getuid())
	f(map[uint32]string{me: "alice"}, true)
	f(map[uint32]string{me + 1: "alice"}, false)
	f(nil, false)
}

// What a connection tells stands in the place of a valid cookie.
func TestProcessOfAUser(t *testing.T) {
	policy := policyFunc(func(real, full, as string, addr netip.Addr) error {
		if real != "alice" || as != "bob" || addr.IsValid() {
			return &proxyusers.DeniedError{Text: "no"}
		}
		return nil
	})
	s := newServer(t, func(cfg *Config) {
		cfg.Users, cfg.ProxyUsers, cfg.MaxInactive = map[uint32]string{7: "alice"}, policy, time.Hour
	})
	f := func(uid uint32, target, header, user, real string, status int) *Identity {
		t.Helper()
		var ctx fasthttp.RequestCtx
		ctx.Init(&fasthttp.Request{}, &Process{UID: uid, told: true, user: s.users[uid]}, nil)
		ctx.Request.SetRequestURI(target)
		if header != "" {
			ctx.Request.Header.Set(tokenHeader, header)
		}
		id, _ := s.Authenticate(&ctx, s.time)
		if id == nil {
			if ctx.Response.StatusCode() != status || status == 200 {
				t.Errorf("%d %s: %d %s", uid, target, ctx.Response.StatusCode(), ctx.Response.Body())
			}
			return nil
		}
		if status != 200 || id.Caller.User != user || id.Caller.Real != real {
			t.Errorf("%d %s: %+v", uid, target, id)
		}
		if local := id.Type == TypeUnix; local != (uid == 7) || local && len(ctx.Response.Header.Peek("Set-Cookie")) > 0 {
			t.Errorf("%d %s: %+v with cookie %q", uid, target, id, ctx.Response.Header.Peek("Set-Cookie"))
		}
		return id
	}
	first := f(7, "/kms/v1/keys/names", "", "alice", "", 200)
	if again := f(7, "/kms/v1/keys/names?user.name=bob", "no token", "alice", "", 200); again != first {
		t.Error("not the same identity on another connection")
	}
	f(7, "/kms/v1/keys/names?doAs=bob", "", "bob", "alice", 200)
	f(7, "/kms/v1/keys/names?doAs=eve", "", "", "", 403)
	f(8, "/kms/v1/keys/names", "", "", "", 401)
	f(8, "/kms/v1/keys/names?user.name=carol", "", "carol", "", 200)
	f(8, "/kms/v1/keys/names?user.name=carol", "no token", "", "", 403)
	k, _ := newKerberos(t, func(cfg *Config) { cfg.Users = map[uint32]string{7: "alice"} })
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &Process{UID: 7, told: true, user: k.users[7]}, nil)
	if id, _ := k.Authenticate(&ctx, k.time); id == nil || id.Caller.Full != "alice" {
		t.Errorf("under Kerberos: %+v", id)
	}
	if s.Judge(&fasthttp.RequestHeader{}, s.time) {
		t.Error("a header alone tells of a process")
	}
}
