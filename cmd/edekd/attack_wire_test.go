package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// slowly are connections that take their time.
type slowly struct {
	statuses chan int // one of each connection, 0 for no answer
	n        int
	stop     chan struct{}
}

// beginSlowly opens connections that send a byte now and then: in their
// headers, in a body of theirs, in a ticket.
func (a *arena) beginSlowly(t *testing.T) *slowly {
	t.Helper()
	s := &slowly{statuses: make(chan int, 200), n: 200, stop: make(chan struct{})}
	var wires []*wire
	for i := range s.n {
		w := a.wire(t)
		w.send([]string{
			"GET ",
			"GET " + whoAsks + " HTTP/1.1\r\nHost: h\r\nX-Slow: ",
			"GET " + whoAsks + " HTTP/1.1\r\nHost: h\r\nAuthorization: Negotiate YII",
			"POST /kms/v1/keys HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 65536\r\n\r\n",
			"POST /kms/v1/keys HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
		}[i%5])
		wires = append(wires, w)
		go func() {
			got, _ := w.answer()
			s.statuses <- got.StatusCode
		}()
	}
	go func() {
		for {
			select {
			case <-s.stop:
				return
			case <-time.After(500 * time.Millisecond):
			}
			for _, w := range wires {
				w.send("A")
			}
		}
	}()
	return s
}

// end waits until all of them have been sent away; their deadline is patience
// after they began.
func (s *slowly) end(t *testing.T) {
	defer close(s.stop)
	for range s.n {
		if status := <-s.statuses; status != http.StatusRequestTimeout {
			t.Fatalf("a slow sender got %d", status)
		}
	}
}

// executed reports whether the server did a request that an attack has smuggled
// in: one for a key of this name.
func (a *arena) executed(t *testing.T, mark string) bool {
	t.Helper()
	// What is asked now comes behind it in the log.
	after := mark + "-after"
	a.ask(t, "GET", "/kms/v1/key/"+after+"/_metadata", a.as("alice"))
	a.actor(t, after)
	return strings.Contains(read(t, filepath.Join(a.logs[0], "kms-audit.json")), `"key":"`+mark+`"`)
}

func headerSmuggling(t *testing.T, a *arena) {
	count := 0
	// f sends a request with these headers and a request of alice's behind them
	// that a proxy would take for a body. It must be answered at most once, and
	// what is behind must not be done.
	f := func(method, headers, before string, statuses ...int) {
		t.Helper()
		count++
		mark := "smuggled-" + strconv.Itoa(count)
		behind := request("GET", "/kms/v1/key/"+mark+"/_metadata", "", a.as("alice"))
		w := a.wire(t)
		w.send(method + " " + whoAsks + " HTTP/1.1\r\nHost: localhost\r\n" + strings.ReplaceAll(headers, "LEN", strconv.Itoa(len(before)+len(behind))) + "\r\n\r\n" + before + behind)
		got, _ := w.answerTo(method)
		if !slices.Contains(statuses, got.StatusCode) {
			t.Errorf("%s %q: %s, want %v", method, headers, got.Status, statuses)
		}
		if second, ok := w.answer(); ok {
			t.Errorf("%s %q: a second answer: %s %s", method, headers, second.Status, second.body)
		}
		if a.executed(t, mark) {
			t.Errorf("%s %q: what is behind it was done", method, headers)
		}
	}
	const chunked = "Transfer-Encoding: chunked"
	for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT"} {
		f(method, "Connection: close\r\nContent-Length: LEN", "", 401, 403)
		f(method, "Content-Length: LEN\r\nContent-Length: 0", "", 400)
		f(method, "Content-Length: 0\r\nContent-Length: LEN", "", 400)
		f(method, "Content-Length: LEN\r\nContent-Length: LEN", "", 400)
		f(method, "Content-Length: LEN\r\n"+chunked, "0\r\n\r\n", 400, 401, 403)
		f(method, chunked+"\r\nContent-Length: LEN", "0\r\n\r\n", 400, 401, 403)
		f(method, chunked+"\r\nContent-Length: 5", "0\r\n\r\n", 400, 401, 403)
		f(method, "Connection: close\r\nContent-Length: \r\n LEN", "", 401, 403) // a folded line is one line
		f(method, "Content-Length : LEN", "", 400)
		f(method, "Content-Length\t: LEN", "", 400)
		f(method, "Content-Length: 0,LEN", "", 400)
		f(method, "Content-Length: +LEN", "", 400)
		f(method, "Content-Length: 0xLEN", "", 400)
		f(method, "Content-Length: -LEN", "", 400)
		f(method, "Transfer-Encoding : chunked", "0\r\n\r\n", 400)
		f(method, "Transfer-Encoding: xchunked", "0\r\n\r\n", 400)
		f(method, "Transfer-Encoding: chunked, identity", "0\r\n\r\n", 400)
		f(method, "Transfer-Encoding: gzip, chunked", "0\r\n\r\n", 400)
		f(method, "Transfer-Encoding:\x0bchunked", "0\r\n\r\n", 400)
		f(method, chunked+"\r\n"+chunked, "0\r\n\r\n", 400)
		f(method, chunked, "ffffffffffffffff1\r\n", 400)
		f(method, chunked, "-1\r\n", 400)
		f(method, chunked, "0x0\r\n\r\n", 400)
		f(method, "X-A: b\x00c", "", 400)
		f(method, "X-A: b\rContent-Length: LEN", "", 400)
		f(method, "no colon", "", 400)
		f(method, ": empty", "", 400)
		f(method, "Host: other", "", 400)
	}
}

// twoCredentials: of two headers or cookies the first counts, wherever it is.
func twoCredentials(t *testing.T, a *arena) {
	forged := sign("another secret", "u=alice&p=alice@"+attackRealm+"&t=kerberos-dt&e=9999999999999")
	front, mallory := a.cookies["front"], a.cookies["mallory"]
	count := 0
	// f sends the headers; user is who the server takes the sender for.
	f := func(user string, headers ...string) {
		t.Helper()
		count++
		key := "two-" + strconv.Itoa(count)
		w := a.wire(t)
		w.send(request("GET", "/kms/v1/key/"+key+"/_metadata", "", headers...))
		got, _ := w.answer()
		if user == "" {
			if got.StatusCode != 401 && got.StatusCode != 403 && got.StatusCode != 400 {
				t.Errorf("%q: %s", headers, got.Status)
			}
			return
		}
		if got.StatusCode != 200 {
			t.Errorf("%q: %s %s", headers, got.Status, got.body)
		} else if l := a.actor(t, key); l.User != user {
			t.Errorf("%q: it was %+v", headers, l)
		}
	}
	cookie := func(values ...string) string {
		for i, v := range values {
			values[i] = `hadoop.auth="` + v + `"`
		}
		return "Cookie: " + strings.Join(values, "; ")
	}
	f("mallory", cookie(mallory), cookie(front))
	f("front", cookie(front, mallory))
	f("", cookie(forged), cookie(mallory))
	f("", cookie(forged, mallory))
	f("mallory", cookie(mallory), cookie(forged))
	f("mallory", cookie(mallory, forged))
	f("", cookie("", mallory))
	f("", `Cookie: x="; hadoop.auth=`+mallory+`; y="`)
	f("", "Cookie: Hadoop.Auth="+mallory)
	f("", "Cookie : hadoop.auth="+mallory)
	f("", "X-A: b\r\n "+cookie(mallory)) // a folded line is part of the one before
	f("mallory", "cookie: hadoop.auth="+mallory, "Authorization: Negotiate YII=")
	f("mallory", cookie(mallory), a.ticket(t, "front"))
	f("front", a.ticket(t, "front"), a.ticket(t, "mallory"))
	f("", "Authorization: Negotiate YII=", a.ticket(t, "mallory"))
	f("", "Authorization: Basic YWxpY2U6YWxpY2U=", a.ticket(t, "mallory"))
	f("front", cookie(forged), a.ticket(t, "front"))
	f("", "Proxy-"+a.ticket(t, "mallory"))
	f("", "X-Remote-User: alice", "Remote-User: alice", "X-Forwarded-User: alice", "SSL_CLIENT_S_DN: CN=alice")

	// Trailers are no headers.
	for _, trailer := range []string{cookie(mallory), a.ticket(t, "mallory"), "X-Hadoop-Delegation-Token: x"} {
		w := a.wire(t)
		w.send("POST /kms/v1/keys HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n" + trailer + "\r\n\r\n")
		if got, _ := w.answer(); got.StatusCode != 400 && got.StatusCode != 401 && got.StatusCode != 403 {
			t.Errorf("trailer %.30q: %s", trailer, got.Status)
		}
	}
}

func hugeHeaders(t *testing.T, a *arena) {
	head := func(size int) string {
		text := request("GET", whoAsks, "", "Authorization: Negotiate ")
		return strings.Replace(text, "Negotiate ", "Negotiate "+strings.Repeat("A", size-len(text)), 1)
	}
	f := func(text string, status int) {
		t.Helper()
		w := a.wire(t)
		w.send(text)
		got, _ := w.answer()
		refused(t, fmt.Sprintf("%d bytes", len(text)), got, status)
	}
	f(head(60<<10), 403)
	f(head(64<<10), 403)
	f(head(64<<10+1), 431)
	f(head(1<<20), 431)
	f("GET /"+strings.Repeat("k", 64<<10)+" HTTP/1.1\r\nHost: h\r\n\r\n", 431)
	f(request("GET", whoAsks, "", strings.TrimSuffix(strings.Repeat("Cookie: hadoop.auth=x\r\n", 2800), "\r\n")), 401)
	f(request("GET", whoAsks, "", "Cookie: "+strings.Repeat("hadoop.auth=x;", 4000)), 401)
	f(request("GET", whoAsks+"?"+strings.Repeat("doAs=a&", 8000), ""), 401)
	f(request("GET", whoAsks+"?"+strings.Repeat("%64oAs=%61;", 5000), "", a.as("front")), 403)
	f(request("GET", whoAsks+"?"+strings.Repeat("doAs=bob&doAs=alice&", 3000), "", a.as("front")), 400)
	f(request("GET", whoAsks, "", "Accept: "+strings.Repeat("text/html;q=0.1,", 4000)), 401)
	f(request("GET", whoAsks, "", "X-Hadoop-Delegation-Token: "+strings.Repeat("A", 60<<10)), 403)
}

// memory is what the process has taken, in bytes.
func (p *process) memory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// bodiesOfNobody: who has not said who he is cannot have memory set aside.
func bodiesOfNobody(t *testing.T, a *arena) {
	before := a.memory(t)
	for _, target := range []string{"/kms/v1/key/trinket/_reencryptbatch", "/kms/v1/keys", "/kms/v1/keyversion/treasure@0/_eek?eek_op=decrypt"} {
		for _, framing := range []string{"Content-Length: 16777216", "Content-Length: 9000000000000000000", "Transfer-Encoding: chunked", "Content-Length: 16777216\r\nExpect: 100-continue"} {
			for range 10 {
				w := a.wire(t)
				w.send("POST " + target + " HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n" + framing + "\r\n\r\n")
				if strings.HasPrefix(framing, "Transfer") {
					piece := "10000\r\n" + strings.Repeat(" ", 0x10000) + "\r\n"
					w.send(piece + piece)
				}
				got, ok := w.answer()
				if !ok || got.StatusCode != 401 && got.StatusCode != 400 || !got.Close {
					t.Fatalf("%s %s: %s %v", target, framing, got.Status, got.Header)
				}
			}
		}
	}
	if after := a.memory(t); after-before > 64<<20 {
		t.Errorf("%d MiB have become %d", before>>20, after>>20)
	}
}
