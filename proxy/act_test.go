package proxy

import (
	"context"
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/proxy/authn"
	"github.com/edekd/edekd/proxy/authn/secret"
	"github.com/edekd/edekd/proxy/authn/token"
)

// newKMSWithTokens serves tokens and writes the audit in both forms.
func newKMSWithTokens(t *testing.T) (k *kms, text *lockedBuffer, object *sink) {
	t.Helper()
	manager, err := token.New(t.Context(), token.Config{Store: token.NewMemory()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(manager.Close)
	ring, err := secret.NewRandom(time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	auth, err := authn.New(authn.Config{Secrets: ring, WriteError: WriteError, Tokens: manager})
	if err != nil {
		t.Fatal(err)
	}
	text, object = &lockedBuffer{}, &sink{refused: make(chan struct{}, 1)}
	k = newKMS(t, func(c *Config) {
		c.Authn = auth
		c.Audit = audit.New(text, audit.Options{JSON: object, Wait: 300 * time.Millisecond})
		t.Cleanup(func() {
			object.full.Store(false)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			c.Audit.Close(ctx)
		})
	})
	return k, text, object
}

// Who may act for whom, and who may not, is in the JSON form and only there; the
// refusals are in the log as well.
func TestActsAreAudited(t *testing.T) {
	k, text, object := newKMSWithTokens(t)
	seen := 0
	f := func(method, target string, status int, want map[string]any) (body string) {
		t.Helper()
		a := k.raw(t, requestText(method, target, ""), 1)[0]
		if a.StatusCode != status {
			t.Errorf("%s %s: %d %s", method, target, a.StatusCode, a.body)
		}
		var lines []string
		for end := time.Now().Add(5 * time.Second); len(lines) <= seen && time.Now().Before(end); time.Sleep(time.Millisecond) {
			lines = strings.SplitAfter(object.String(), "\n") // what was granted is not waited for
			lines = lines[:len(lines)-1]
		}
		seen++
		var got map[string]any
		if len(lines) != seen {
			t.Fatalf("%d lines, want %d: %s", len(lines), seen, lines)
		}
		if err := json.Unmarshal([]byte(lines[seen-1]), &got); err != nil {
			t.Fatalf("%v: %s", err, lines[seen-1])
		}
		if got["requestId"] == nil || got["time"] == nil {
			t.Errorf("%v", got)
		}
		delete(got, "requestId")
		delete(got, "time")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s %s: got\n%v, want\n%v", method, target, got, want)
		}
		if want["decision"] == "denied" && !strings.Contains(k.log.String(), "op="+want["op"].(string)) {
			t.Errorf("the log does not tell of %v: %s", want, k.log.String())
		}
		return a.body
	}
	const kms = "/kms/v1/?"
	body := f("GET", kms+"op=GETDELEGATIONTOKEN&renewer=yarn&user.name=alice", 200,
		map[string]any{"decision": "allowed", "op": "GET_DELEGATION_TOKEN", "user": "alice", "principal": "alice", "tokenSequence": 1.0})
	var answer struct{ Token struct{ URLString string } }
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	it := url.QueryEscape(answer.Token.URLString)
	f("PUT", kms+"op=RENEWDELEGATIONTOKEN&user.name=yarn&token="+it, 200,
		map[string]any{"decision": "allowed", "op": "RENEW_DELEGATION_TOKEN", "user": "yarn", "principal": "yarn", "tokenSequence": 1.0})
	f("PUT", kms+"op=RENEWDELEGATIONTOKEN&user.name=eve&token=junk", 403,
		map[string]any{"decision": "denied", "status": 403.0, "op": "RENEW_DELEGATION_TOKEN", "user": "eve", "principal": "eve", "method": "PUT",
			"error": "java.io.EOFException"})
	f("GET", kms+"op=GETDELEGATIONTOKEN&user.name=eve&doAs=alice", 403,
		map[string]any{"decision": "denied", "status": 403.0, "op": "IMPERSONATE", "user": "alice", "principal": "alice", "realUser": "eve", "method": "GET",
			"error": "User: eve is not allowed to impersonate alice"})
	f("GET", "/kms/v1/keys/names?user.name=eve&doAs=alice", 403,
		map[string]any{"decision": "denied", "status": 403.0, "op": "IMPERSONATE", "user": "alice", "principal": "alice", "realUser": "eve", "method": "GET",
			"error": "User: eve is not allowed to impersonate alice"})
	f("PUT", kms+"op=CANCELDELEGATIONTOKEN&token="+it, 200,
		map[string]any{"decision": "allowed", "op": "CANCEL_DELEGATION_TOKEN", "user": "alice", "principal": "alice", "tokenSequence": 1.0})
	const gone = "org.apache.hadoop.security.token.SecretManager$InvalidToken: Token for real user: , can't be found in cache"
	f("PUT", kms+"op=CANCELDELEGATIONTOKEN&token="+it, 404,
		map[string]any{"decision": "denied", "status": 404.0, "op": "CANCEL_DELEGATION_TOKEN", "method": "PUT", "tokenSequence": 1.0, "error": gone})
	f("GET", "/kms/v1/keys/names?delegation="+it, 403,
		map[string]any{"decision": "denied", "status": 403.0, "op": "USE_DELEGATION_TOKEN", "method": "GET", "tokenSequence": 1.0, "error": gone})
	if got := text.String(); got != "" {
		t.Errorf("the frozen text has new lines: %s", got)
	}
	for _, log := range []string{k.log.String(), object.String()} {
		if strings.Contains(log, answer.Token.URLString) {
			t.Errorf("a token stands in %s", log)
		}
	}
}

// Somebody who may not act for another learns nothing of it while that cannot be
// written down.
func TestUnauditedRefusalToAct(t *testing.T) {
	k, _, object := newKMSWithTokens(t)
	object.full.Store(true)
	for _, request := range []string{
		requestText("GET", "/kms/v1/keys/names?delegation=junk", ""),
		requestText("GET", "/kms/v1/keys/names?user.name=eve&doAs=alice", ""),
		requestText("PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token=junk", ""),
	} {
		contains(t, remote(t, k.raw(t, request, 1)[0], 500, classIO), unauditedText)
	}
}
