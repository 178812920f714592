package main

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/proxy/authn/token"
)

// issue has a token made for who sends the header, and keeps it out of the logs.
func (a *arena) issue(t *testing.T, p *process, query, header string) string {
	t.Helper()
	got := p.ask(t, "GET", "/kms/v1/?op=GETDELEGATIONTOKEN&"+query, header)
	var made struct {
		Token struct {
			URLString string `json:"urlString"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &made); err != nil || made.Token.URLString == "" {
		t.Fatalf("no token: %s %s", got.Status, got.body)
	}
	a.secret = append(a.secret, made.Token.URLString)
	return made.Token.URLString
}

func tokenHeader(text string) string { return "X-Hadoop-Delegation-Token: " + text }

// altered is a token with something else in it.
func altered(t *testing.T, text string, change func(*token.Token, *token.Identifier)) string {
	t.Helper()
	made, err := token.ParseURL([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	id, err := token.ParseIdentifier(made.Identifier)
	if err != nil {
		t.Fatal(err)
	}
	change(made, &id)
	made.Identifier = id.Append(nil)
	return string(made.AppendURL(nil))
}

// forgeries are made of a token of mallory's, to be somebody else or for longer.
func forgeries(t *testing.T, good, other string) map[string]string {
	t.Helper()
	f := func(change func(*token.Token, *token.Identifier)) string { return altered(t, good, change) }
	all := map[string]string{
		"owner":         f(func(_ *token.Token, id *token.Identifier) { id.Owner = "alice" }),
		"renewer":       f(func(_ *token.Token, id *token.Identifier) { id.Renewer = "alice" }),
		"real user":     f(func(_ *token.Token, id *token.Identifier) { id.RealUser = "front" }),
		"issued later":  f(func(_ *token.Token, id *token.Identifier) { id.Issued += 86_400_000 }),
		"ends later":    f(func(_ *token.Token, id *token.Identifier) { id.MaxDate += 86_400_000 }),
		"never ends":    f(func(_ *token.Token, id *token.Identifier) { id.MaxDate = 1<<63 - 1 }),
		"next number":   f(func(_ *token.Token, id *token.Identifier) { id.Sequence++ }),
		"no number":     f(func(_ *token.Token, id *token.Identifier) { id.Sequence = -1 }),
		"another key":   f(func(_ *token.Token, id *token.Identifier) { id.KeyID-- }),
		"no owner":      f(func(_ *token.Token, id *token.Identifier) { id.Owner = "" }),
		"no password":   f(func(made *token.Token, _ *token.Identifier) { made.Password = nil }),
		"zero password": f(func(made *token.Token, _ *token.Identifier) { clear(made.Password) }),
		"short":         f(func(made *token.Token, _ *token.Identifier) { made.Password = made.Password[:19] }),
		"long":          f(func(made *token.Token, _ *token.Identifier) { made.Password = append(made.Password, 0) }),
		"empty":         "", "not base64": "***", "not a token": "AAAA", "doubled": good + good, "with more": good + "AAAA",
	}
	for bit := range 160 {
		all["bit "+strconv.Itoa(bit)+" of the password"] = f(func(made *token.Token, _ *token.Identifier) { made.Password[bit/8] ^= 1 << (bit % 8) })
	}
	theirs, err := token.ParseURL([]byte(other))
	if err != nil {
		t.Fatal(err)
	}
	all["password of another"] = f(func(made *token.Token, _ *token.Identifier) { made.Password = theirs.Password })
	all["identifier of another"] = altered(t, other, func(made *token.Token, _ *token.Identifier) {
		mine, err := token.ParseURL([]byte(good))
		if err != nil {
			t.Fatal(err)
		}
		made.Password = mine.Password
	})
	return all
}

func forgedTokens(t *testing.T, a *arena) {
	good := a.issue(t, a.process, "renewer=front", a.ticket(t, "mallory"))
	alices := a.issue(t, a.process, "renewer=mallory", a.ticket(t, "alice"))
	if got := a.ask(t, "GET", whoAsks, tokenHeader(good)); got.StatusCode != 200 {
		t.Fatalf("a good token: %s", got.Status)
	}
	for what, text := range forgeries(t, good, alices) {
		refused(t, what, a.ask(t, "GET", whoAsks, tokenHeader(text)), 403)
		refused(t, what+" in the query", a.ask(t, "GET", whoAsks+"?delegation="+url.QueryEscape(text), ""), 403)
		refused(t, what+" beside a ticket", a.ask(t, "GET", whoAsks+"?delegation="+url.QueryEscape(text), a.ticket(t, "front")), 403)
		if text == "" {
			continue // names no token to renew or cancel
		}
		query := "&token=" + url.QueryEscape(text)
		refused(t, "renew "+what, a.ask(t, "PUT", "/kms/v1/?op=RENEWDELEGATIONTOKEN"+query, a.as("front")), 403)
		for _, header := range []string{"", a.as("mallory"), a.as("alice"), a.as("front")} {
			refused(t, "cancel "+what, a.ask(t, "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN"+query, header), 404)
		}
	}
	for _, text := range []string{good, alices} {
		if got := a.ask(t, "GET", whoAsks, tokenHeader(text)); got.StatusCode != 200 {
			t.Fatalf("a good token after all that: %s %s", got.Status, got.body)
		}
	}

	// A token is for its owner, and makes no others.
	got := a.ask(t, "GET", "/kms/v1/key/treasure/_currentversion?doAs=alice", tokenHeader(good))
	refused(t, "doAs with a token", got, 403)
	for _, op := range []string{"GETDELEGATIONTOKEN", "getDelegationToken", "%47ETDELEGATIONTOKEN"} {
		refused(t, op+" by a token", a.ask(t, "GET", "/kms/v1/?op="+op, tokenHeader(good)), 401)
	}
	refused(t, "renewal by a token", a.ask(t, "PUT", "/kms/v1/?op=RENEWDELEGATIONTOKEN&token="+alices, tokenHeader(good)), 401)
	refused(t, "renewal by the owner", a.ask(t, "PUT", "/kms/v1/?op=RENEWDELEGATIONTOKEN&token="+good, a.as("mallory")), 403)
	refused(t, "cancelled by a stranger", a.ask(t, "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token="+good, a.as("gateway")), 404)
	refused(t, "cancelled as another", a.ask(t, "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&doAs=mallory&token="+good, a.as("front")), 403)
	for _, method := range []string{"GET", "POST", "DELETE", "HEAD"} {
		refused(t, method, a.ask(t, method, "/kms/v1/key/trinket?op=CANCELDELEGATIONTOKEN&token="+good, a.as("mallory")), 400)
	}
	refused(t, "DELETE", a.ask(t, "DELETE", "/kms/v1/key/trinket?op=GETDELEGATIONTOKEN", a.as("mallory")), 400)

	if got := a.ask(t, "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token="+good, ""); got.StatusCode != 200 {
		t.Errorf("cancelled by who has it: %s", got.Status)
	}
	refused(t, "a cancelled token", a.ask(t, "GET", whoAsks, tokenHeader(good)), 403)
	refused(t, "a cancelled token in the query", a.ask(t, "GET", whoAsks+"?delegation="+good, ""), 403)
	refused(t, "cancelled again", a.ask(t, "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token="+good, ""), 404)
}

func expiredTokens(t *testing.T, a *arena) {
	// Tokens of this server end after a second.
	text := a.issue(t, a.simple, "renewer=yarn&user.name=mallory", "")
	made := time.Now()
	a.eventually("the token ends", func() bool {
		sent := time.Now()
		got := a.simple.ask(t, "GET", whoAsks, tokenHeader(text))
		if lived := sent.Sub(made); got.StatusCode == 200 && lived > 2*time.Second {
			t.Errorf("it lived for %v", lived)
		}
		return got.StatusCode == 403 && strings.Contains(got.body, "has expired")
	})
	refused(t, "in the query", a.simple.ask(t, "GET", whoAsks+"?delegation="+text, ""), 403)
	refused(t, "cancel", a.simple.ask(t, "PUT", "/kms/v1/?op=CANCELDELEGATIONTOKEN&token="+text, ""), 404)
	for what, later := range forgeries(t, text, text) {
		if strings.Contains(what, "of another") { // the same one, here
			continue
		}
		refused(t, what, a.simple.ask(t, "GET", whoAsks, tokenHeader(later)), 403)
	}
	// What one server issued, the other does not know.
	refused(t, "elsewhere", a.ask(t, "GET", whoAsks, tokenHeader(text)), 403)
}
