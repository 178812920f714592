package interop

import (
	"bufio"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/hadoop/writable"
	"github.com/edekd/edekd/proxy/authn/token"
)

// javaTokens is the program Tokens.java.
type javaTokens struct {
	program *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

// startJavaTokens starts the program, which the caller stops.
func startJavaTokens(t *testing.T, hadoop string) *javaTokens {
	t.Helper()
	program := Java(t, hadoop, checksPackage+"Tokens")
	in, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	return &javaTokens{program, in, bufio.NewReader(out)}
}

// stop ends the program, which has to be content.
func (j *javaTokens) stop(t *testing.T) {
	t.Helper()
	j.in.Close()
	if err := j.program.Wait(); err != nil {
		t.Errorf("the Java side: %v", err)
	}
}

// ask sends a command and returns its answer.
func (j *javaTokens) ask(t *testing.T, words ...string) string {
	t.Helper()
	if _, err := io.WriteString(j.in, strings.Join(words, "\t")+"\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := j.out.ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", words[0], err)
	}
	return strings.TrimSuffix(answer, "\n")
}

// must is ask for a command that cannot fail.
func (j *javaTokens) must(t *testing.T, words ...string) string {
	t.Helper()
	answer := j.ask(t, words...)
	if strings.HasPrefix(answer, "!") {
		t.Fatalf("%q: %s", words, answer)
	}
	return answer
}

// adopt makes the keys and one token of the Java side known to a store of ours.
func (j *javaTokens) adopt(t *testing.T, store token.Store, text string, renewDate time.Time) token.Identifier {
	t.Helper()
	for line := range strings.SplitSeq(j.must(t, "keys"), "\t") {
		var id int32
		var expires int64
		var secret []byte
		if _, err := fmt.Sscanf(line, "%d %d %x", &id, &expires, &secret); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := store.PutKey(t.Context(), token.NewMasterKey(id, expires, secret)); err != nil {
			t.Fatal(err)
		}
	}
	parsed, id := takeApart(t, text)
	err := store.Put(t.Context(), &token.Record{
		Sequence: id.Sequence, Identifier: parsed.Identifier, Password: parsed.Password, RenewDate: renewDate.UnixMilli(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func takeApart(t *testing.T, text string) (*token.Token, token.Identifier) {
	t.Helper()
	parsed, err := token.ParseURL([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	id, err := token.ParseIdentifier(parsed.Identifier)
	if err != nil {
		t.Fatal(err)
	}
	return parsed, id
}

func tokenManager(t *testing.T, cfg token.Config) *token.Manager {
	t.Helper()
	m, err := token.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// Tokens of ours are in Java's eyes what they are in ours, and the other way
// round.
func TestTokensGoBothWays(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		java := startJavaTokens(t, hadoop)
		defer java.stop(t)
		java.must(t, "start", "604800", "86400")
		for _, q := range []token.Request{
			{Owner: "alice", Renewer: "yarn"},
			{Owner: "alice"},
			{Owner: "alice", RealUser: "alice", Renewer: "yarn"},
			{Owner: "joãozinho", RealUser: "hive", Renewer: "rm", Service: "kms://http@h1;h2:9600/kms"},
			{Owner: strings.Repeat("x", 256), RealUser: strings.Repeat("y", 127), Renewer: strings.Repeat("z", 128), Service: strings.Repeat("s", 4000)},
		} {
			store := token.NewMemory()
			issued, err := tokenManager(t, token.Config{Store: store}).Issue(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			_, id := takeApart(t, string(issued.AppendURL(nil)))
			text := string(issued.AppendURL(nil))
			want := []string{hex.EncodeToString(issued.Identifier), hex.EncodeToString(issued.Password), token.Kind, q.Service, id.String(), q.Owner, id.Real(), text}
			if got := strings.Split(java.must(t, "describe", text), "\t"); !slices.Equal(got, want) {
				t.Errorf("of ours Java reads\n%q, want\n%q", got, want)
			}
			key, err := store.Key(t.Context(), id.KeyID)
			if err != nil {
				t.Fatal(err)
			}
			if got := java.must(t, "mac", hex.EncodeToString(key.Secret), want[0]); got != want[1] {
				t.Errorf("password %s, Java's %s", want[1], got)
			}

			theirs := java.must(t, "issue", q.Owner, q.RealUser, q.Renewer, q.Service)
			ours := token.NewMemory()
			m := tokenManager(t, token.Config{Store: ours})
			javaID := java.adopt(t, ours, theirs, time.Now().Add(time.Hour))
			if javaID.Owner != q.Owner || javaID.RealUser != q.RealUser || javaID.Renewer != q.Renewer || javaID.MaxDate-javaID.Issued != 604800000 {
				t.Errorf("of Java's we read %v", &javaID)
			}
			if v, err := m.Verify([]byte(theirs), time.Now()); err != nil || v.Identifier != javaID {
				t.Errorf("Java's token: %v", err)
			}
			// A renewal makes the password anew.
			if _, err := m.Renew(t.Context(), []byte(theirs), q.Renewer); q.Renewer != "" && err != nil {
				t.Errorf("renewal of Java's token: %v", err)
			}
			parsed, _ := takeApart(t, theirs)
			if again := string(parsed.AppendURL(nil)); again != theirs {
				t.Errorf("Java's token %s becomes %s", theirs, again)
			}
		}
	})
}

var digits = regexp.MustCompile(`[0-9]`)

// Both sides are given the same token, altered in all ways, and say the same,
// or something else that is on purpose.
func TestTokenRefusals(t *testing.T) {
	EachHadoop(t, func(t *testing.T, hadoop string) {
		java := startJavaTokens(t, hadoop)
		defer java.stop(t)
		java.must(t, "start", "604800", "86400")
		store := token.NewMemory()
		m := tokenManager(t, token.Config{Store: store})
		adopted := func(real, renewer string) string {
			text := java.must(t, "issue", "alice", real, renewer, "")
			java.adopt(t, store, text, time.Now().Add(24*time.Hour))
			return text
		}
		good := adopted("hive", "yarn")
		const same = ""
		// f does one thing on both sides. ours is what we say where Java says
		// something else, which then is theirs.
		f := func(what, op, text, user, theirs, ours string) {
			t.Helper()
			javas := java.ask(t, op, text, user)
			var got string
			var err error
			switch op {
			case "verify":
				var v *token.Verified
				if v, err = m.Verify([]byte(text), time.Now()); err == nil {
					got = v.Identifier.Owner
				}
			case "renew":
				var date int64
				date, err = m.Renew(t.Context(), []byte(text), user)
				got = strconv.FormatInt(date, 10)
			case "cancel":
				err = m.Cancel(t.Context(), []byte(text), user)
				got = "cancelled"
			}
			if err != nil {
				got = "!" + err.Error()
			}
			if theirs == same {
				// Times are the moment of the asking.
				if digits.ReplaceAllString(got, "0") != digits.ReplaceAllString(javas, "0") {
					t.Errorf("%s: %s says\n%s, Java\n%s", what, op, got, javas)
				}
				return
			}
			if got != ours || javas != theirs {
				t.Errorf("%s: %s says\n%s, want\n%s, Java\n%s, want\n%s", what, op, got, ours, javas, theirs)
			}
		}
		alter := func(text string, alter func(parsed *token.Token, id *token.Identifier)) string {
			parsed, id := takeApart(t, text)
			before := id
			alter(parsed, &id)
			if id != before {
				parsed.Identifier = id.Append(nil)
			}
			return string(parsed.AppendURL(nil))
		}
		identifier := func(id ...byte) string {
			return string((&token.Token{Identifier: id, Password: make([]byte, 20), Kind: token.Kind}).AppendURL(nil))
		}
		raw := func(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
		parsed, id := takeApart(t, good)

		f("a good one", "verify", good, "", same, "")
		f("another owner", "verify", alter(good, func(_ *token.Token, id *token.Identifier) { id.Owner = "root" }), "", same, "")
		f("another real user", "verify", alter(good, func(_ *token.Token, id *token.Identifier) { id.RealUser = "root" }), "", same, "")
		f("issued tomorrow", "verify", alter(good, func(_ *token.Token, id *token.Identifier) { id.Issued += 86400000 }), "", same, "")
		f("another number", "verify", alter(good, func(_ *token.Token, id *token.Identifier) { id.Sequence = math.MinInt32 }), "", same, "")
		f("another kind", "verify", alter(good, func(parsed *token.Token, _ *token.Identifier) { parsed.Kind = "other" }), "", same, "")
		forged := alter(good, func(parsed *token.Token, _ *token.Identifier) { parsed.Password[3] ^= 1 })
		f("forged", "verify", forged, "", same, "")
		f("no password", "verify", alter(good, func(parsed *token.Token, _ *token.Identifier) { parsed.Password = nil }), "", same, "")

		f("empty", "verify", "", "", same, "")
		for cut := range parsed.Identifier {
			f(fmt.Sprintf("cut to %d", cut), "verify", identifier(parsed.Identifier[:cut]...), "", same, "")
		}
		f("cut", "verify", good[:40], "", same, "")
		f("another version", "verify", identifier(append([]byte{7}, parsed.Identifier[1:]...)...), "", same, "")
		f("owner of negative length", "verify", identifier(append([]byte{0}, writable.AppendVInt(nil, -3)...)...), "", same, "")
		f("number of 33 bits", "verify", identifier(append([]byte{0}, writable.AppendVLong(nil, 1<<32)...)...), "", same, "")
		f("owner of two megabytes", "verify", identifier(append([]byte{0}, writable.AppendVInt(nil, 2<<20)...)...), "", same, "")
		f("owner of a kilobyte, cut", "verify", identifier(append([]byte{0}, writable.AppendVInt(nil, 1025)...)...), "", same, "")
		f("identifier of negative length", "verify", raw(writable.AppendVInt(nil, -3)), "",
			"!java.lang.NegativeArraySizeException: -3",
			"!java.io.IOException: tried to deserialize -3 bytes of data!  newLength must be non-negative.")
		f("identifier of a megabyte", "verify", raw(writable.AppendVInt(nil, 1<<20)), "", same, "")
		nobody := id
		nobody.Owner = ""
		f("no owner", "verify", identifier(nobody.Append(nil)...), "",
			"!org.apache.hadoop.security.token.SecretManager$InvalidToken: Token for real user: hive, can't be found in cache",
			"!org.apache.hadoop.security.token.SecretManager$InvalidToken: Token with no owner ("+nobody.String()+")")
		// What Java overlooks.
		trailing := "!java.io.IOException: more data than a delegation token has"
		f("more than an identifier", "verify", alter(good, func(parsed *token.Token, _ *token.Identifier) {
			parsed.Identifier = append(slices.Clone(parsed.Identifier), 0)
		}), "", "alice", trailing)
		plain, err := base64.RawURLEncoding.DecodeString(good)
		if err != nil {
			t.Fatal(err)
		}
		f("more than a token", "verify", raw(append(plain, 0)), "", "alice", trailing)
		f("other characters", "verify", "!"+good[:20]+" * "+good[20:], "", "alice", "!java.io.IOException: not the base64 text of a delegation token")
		for size := range 3 {
			padded := alter(good, func(parsed *token.Token, _ *token.Identifier) { parsed.Service = strings.Repeat("~?", size) })
			bytes, err := base64.RawURLEncoding.DecodeString(padded)
			if err != nil {
				t.Fatal(err)
			}
			f("standard base64", "verify", base64.StdEncoding.EncodeToString(bytes), "", same, "")
			f("padded", "verify", base64.URLEncoding.EncodeToString(bytes), "", same, "")
		}

		f("by a stranger", "renew", good, "mallory", same, "")
		f("by the owner", "renew", good, "alice", same, "")
		f("forged", "renew", forged, "yarn", same, "")
		f("another renewer", "renew", alter(good, func(_ *token.Token, id *token.Identifier) { id.Renewer = "mallory" }), "mallory", same, "")
		f("unknown key", "renew", alter(good, func(_ *token.Token, id *token.Identifier) { id.KeyID = 77 }), "yarn", same, "")
		f("dead", "renew", alter(good, func(_ *token.Token, id *token.Identifier) { id.MaxDate = 1700000000000 }), "yarn", same, "")
		f("cut", "renew", good[:40], "yarn", same, "")
		f("by the renewer", "renew", good, "yarn", same, "")
		f("no renewer", "renew", adopted("", ""), "alice", same, "")

		f("by a stranger", "cancel", good, "mallory", same, "")
		f("by the real user", "cancel", good, "hive", same, "")
		f("forged, by nobody", "cancel", forged, "", same, "")
		f("another owner, by that one", "cancel", alter(good, func(_ *token.Token, id *token.Identifier) { id.Owner = "mallory" }), "mallory", same, "")
		f("another owner, by nobody", "cancel", alter(good, func(_ *token.Token, id *token.Identifier) { id.Owner = "mallory" }), "", same, "")
		f("cut", "cancel", good[:40], "yarn", same, "")
		f("by the owner", "cancel", good, "alice", same, "")
		f("gone", "verify", good, "", same, "")
		f("gone", "renew", good, "yarn", same, "")
		f("gone, by the owner", "cancel", good, "alice", same, "")
		f("gone, by nobody", "cancel", good, "", same, "")
		f("by the renewer", "cancel", adopted("", "yarn"), "yarn", same, "")
		f("by nobody", "cancel", adopted("hive", "yarn"), "", same, "")
		another := adopted("hive", "yarn")
		forged = alter(another, func(parsed *token.Token, _ *token.Identifier) { parsed.Password[3] ^= 1 })
		_, id = takeApart(t, another)
		f("forged, by the owner", "cancel", forged, "alice", "cancelled",
			"!org.apache.hadoop.security.token.SecretManager$InvalidToken: token ("+id.String()+") is invalid, password doesn't match")

		// Time.
		java.must(t, "start", "1", "1")
		text := java.must(t, "issue", "alice", "hive", "yarn", "")
		expired := token.NewMemory()
		m = tokenManager(t, token.Config{Store: expired})
		id = java.adopt(t, expired, text, time.Now().Add(-time.Millisecond))
		for end := time.Now().Add(10 * time.Second); time.Now().UnixMilli() < id.MaxDate+2; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a second did not pass in ten")
			}
		}
		f("expired", "verify", text, "", same, "")
		f("expired", "renew", text, "yarn", same, "")
		f("expired, by nobody", "cancel", text, "", same, "")
		f("expired, by the renewer", "cancel", text, "yarn", same, "")
	})
}
