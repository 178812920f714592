package audit

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/logfile"
)

// sink is a log file that fails or stalls on command.
type sink struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	room  int           // bytes taken before err, when err is set
	err   error         // what Write returns
	stall chan struct{} // Write waits for it to be closed
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	stall := s.stall
	s.mu.Unlock()
	if stall != nil {
		<-stall
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		n := min(s.room, len(p))
		s.room -= n
		s.buf.Write(p[:n])
		return n, s.err
	}
	return s.buf.Write(p)
}

// fail makes writes fail after room more bytes; a nil err heals.
func (s *sink) fail(err error, room int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.room = err, room
}

// block makes writes wait until the returned function is called.
func (s *sink) block() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stall := make(chan struct{})
	s.stall = stall
	return func() {
		s.mu.Lock()
		s.stall = nil
		s.mu.Unlock()
		close(stall)
	}
}

// next returns what has been written since the last call.
func (s *sink) next() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.buf.String()
	s.buf.Reset()
	return text
}

// by is what a user does under simple authentication, seen from one place.
func by(user string, op Op, key string) Event {
	return Event{Op: op, Key: key, Caller: edek.Caller{User: user, Full: user}, Client: home, Request: 7}
}

var home = netip.MustParseAddr("10.0.0.1")

var stamp = regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} `)

// bubble runs f in virtual time with a log on a fresh sink.
func bubble(t *testing.T, opts Options, f func(t *testing.T, l *Log, s *sink)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := new(sink)
		l := New(s, opts)
		f(t, l, s)
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// wantNext checks the lines written since the last call, times left out.
func wantNext(t *testing.T, s *sink, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	text := s.next()
	got := stamp.ReplaceAllString(text, "")
	if n := strings.Count(text, "\n"); len(stamp.FindAllString(text, -1)) != n {
		t.Errorf("%s: a line without a time in %q", when, text)
	}
	var lines strings.Builder
	for _, w := range want {
		lines.WriteString(w + "\n")
	}
	if got != lines.String() {
		t.Errorf("%s:\ngot  %q\nwant %q", when, got, lines.String())
	}
}

// The lines of Hadoop's format, to the byte. Virtual time starts at midnight UTC.
func TestGoldenLines(t *testing.T) {
	zone := time.Local
	time.Local = time.FixedZone("", 3600)
	defer func() { time.Local = zone }()

	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		time.Sleep(7 * time.Millisecond)
		f := func(log func(), want string) {
			t.Helper()
			log()
			synctest.Wait()
			if got := s.next(); got != "2000-01-01 01:00:00,007 "+want+"\n" {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		}
		ctx := t.Context()
		f(func() { l.OK(by("alice", GetKeys, ""), "") },
			`OK[op=GET_KEYS, user=alice] `)
		f(func() { l.State("cache-only", "ok") }, `OK[op=SERVICE_STATE] cache-only, before ok`)
		f(func() { l.OK(by("hdfs/nn1@REALM", GetMetadata, "k1"), "") },
			`OK[op=GET_METADATA, key=k1, user=hdfs/nn1@REALM] `)
		f(func() { l.OK(by("hdfs", ReencryptEEKBatch, "k1"), "reencrypted 3 keys") },
			`OK[op=REENCRYPT_EEK_BATCH, key=k1, user=hdfs] reencrypted 3 keys`)
		f(func() { l.Admin(ctx, by("alice", CreateKey, "k1"), "UserProvidedMaterial:false Description:null") },
			`OK[op=CREATE_KEY, key=k1, user=alice] UserProvidedMaterial:false Description:null`)
		f(func() { l.Count(by("hdfs", GenerateEEK, "k1")) },
			`OK[op=GENERATE_EEK, key=k1, user=hdfs, accessCount=1, interval=0ms] `)
		f(func() { l.Count(by("hdfs", GenerateEEK, "")) },
			`OK[op=GENERATE_EEK, user=hdfs] `)
		f(func() { l.Count(by("hdfs", GetKeyVersions, "k1")) },
			`OK[op=GET_KEY_VERSIONS, key=k1, user=hdfs] `)
		f(func() { l.Unauthorized(by("bob", KeyManagement, "k1")) },
			`UNAUTHORIZED[op=MANAGEMENT, key=k1, user=bob] `)
		f(func() { l.Unauthorized(by("bob", GetKeys, "")) },
			`UNAUTHORIZED[op=GET_KEYS, user=bob] `)
		f(func() { l.Error(by("bob", 0, ""), 500, "POST", "Key 'k1' already exists") },
			`ERROR[user=bob] Method:'POST' Exception:'Key 'k1' already exists'`)
		f(func() { l.Error(by("", 0, ""), 500, "GET", "no") },
			`ERROR Method:'GET' Exception:'no'`)
		f(func() {
			l.Unauthenticated(Event{Client: netip.MustParseAddr("10.0.0.1")}, "GET", "http://h:9600/kms/v1/keys/names?x=y", "Authentication required")
		},
			`UNAUTHENTICATED RemoteHost:10.0.0.1 Method:GET URL:http://h:9600/kms/v1/keys/names?x=y ErrorMsg:'Authentication required'`)
		if l.Lines() != 13 || l.Lost() != 0 || l.Pending() != 0 {
			t.Errorf("%d lines, %d lost, %d bytes pending", l.Lines(), l.Lost(), l.Pending())
		}
	})
}

func TestOpsHaveHadoopsNames(t *testing.T) {
	for op := CreateKey; op <= KeyDecryptEEK; op++ {
		if op.String() == "" {
			t.Errorf("operation %d has no name", op)
		}
	}
	if Op(0).String() != "" || Op(200).String() != "" {
		t.Error("an unknown operation has a name")
	}
	if KeyDecryptEEK.aggregated() || !DecryptEEK.aggregated() {
		t.Error("only the KMS's own operations are aggregated")
	}
}

func TestOverlongNamesAreNotKept(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		long := strings.Repeat("x", maxNames)
		want := "OK[op=DECRYPT_EEK, key=" + long[:maxName] + "...(1024 bytes cut), user=u, accessCount=1, interval=0ms] "
		l.Count(by("u", DecryptEEK, long))
		wantNext(t, s, "first", want)
		l.Count(by("u", DecryptEEK, long))
		wantNext(t, s, "second", want)
	})
}

func TestCloseWritesWhatWasCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(sink)
		l := New(s, Options{})
		for range 5 {
			l.Count(by("u", DecryptEEK, "k"))
		}
		wantNext(t, s, "first", countLine("DECRYPT_EEK", 1, 0))
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantNext(t, s, "closed", countLine("DECRYPT_EEK", 5, 0))

		l.Count(by("u", DecryptEEK, "k"))
		l.OK(by("u", GetKeys, ""), "")
		l.Error(by("u", 0, ""), 500, "GET", "late")
		if err := l.Admin(t.Context(), by("u", DeleteKey, "k"), ""); !errors.Is(err, errClosed) {
			t.Errorf("Admin after Close: %v", err)
		}
		if err := l.Ready(); !errors.Is(err, errClosed) {
			t.Errorf("Ready after Close: %v", err)
		}
		if l.Lost() != 4 {
			t.Errorf("%d lost after Close, want 4", l.Lost())
		}
	})
}

func TestLogOnARealFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms-audit.log")
	file, err := logfile.Open(path, logfile.Options{Daily: true})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := New(file, Options{})
	if err := l.Admin(t.Context(), by("u", CreateKey, "k"), ""); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := stamp.ReplaceAllString(string(text), ""); got != "OK[op=CREATE_KEY, key=k, user=u] \n" {
		t.Errorf("when Admin has returned the file holds %q", got)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLogOnAFullDevice(t *testing.T) {
	file, err := logfile.Open("/dev/full", logfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := New(file, Options{Wait: 50 * time.Millisecond})
	if err := l.Admin(t.Context(), by("u", CreateKey, "k"), ""); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Admin: %v", err)
	}
	if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Ready: %v", err)
	}
	if err := l.Close(cancelled(t)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Close: %v", err)
	}
}

// cancelled is a context that is over.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
