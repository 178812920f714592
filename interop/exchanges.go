package interop

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"
)

// Exchange is one request of the side-by-side list with the answers on record.
// Exchanges live in testdata/exchanges, one text file per group:
//
//	== name-of-the-exchange
//	# why it is here
//	@expect-continue
//	POST /kms/v1/keys?user.name=alice
//	Content-Type: application/json
//
//	{"name":"k"}
//	-- java 3.4.3
//	201 Created
//	…
//
// The request is a text/template (see Run for its functions). Its head gets
// CRLF line ends, the protocol version when the request line has none, a Host
// header unless one is written or "Host: -" forbids it, and a Content-Length
// when there is a body and no other framing. Below "-- server" stand the masked
// answers, written by the test's -update flag.
type Exchange struct {
	Group string
	Name  string
	Notes []string // comment lines above the request

	// Responses is the number of answers to read, 1 unless the exchange
	// pipelines several requests ("@responses 2").
	Responses int
	// ExpectContinue holds the body back until an interim answer or a final
	// one arrives ("@expect-continue").
	ExpectContinue bool
	// HalfClose ends our side of the connection after the last byte, as a
	// client does that dies in the middle of a body ("@half-close").
	HalfClose bool
	// Exact compares key bytes too: everything in the exchange is determined by
	// material and IV that the list itself supplies ("@exact").
	Exact bool
	// BodyVaries compares everything but the body, of pages that show the state
	// of the process ("@body-varies").
	BodyVaries bool
	// Raw sends the text as it is: no CRLF, no added headers ("@raw").
	Raw bool

	Request string // template text
	// Recorded holds the masked answers by the server that gave them; a server
	// that answers like its Reference has no entry.
	Recorded map[string]string
}

// The servers of a comparison, by the names their recorded answers have.
const (
	Java343     = "java 3.4.3"
	Java336     = "java 3.3.6"
	EdekdJCEKS  = "edekd jceks"
	EdekdSQLite = "edekd sqlite"
)

// Reference names, for each server, the one whose recorded answer stands for
// its own where the two are equal.
var Reference = map[string]string{Java336: Java343, EdekdJCEKS: Java343, EdekdSQLite: EdekdJCEKS}

// Expected returns what server is on record to answer, directly or through its
// reference, and whether anything is on record.
func (e *Exchange) Expected(server string) (string, bool) {
	for ; server != ""; server = Reference[server] {
		if text, ok := e.Recorded[server]; ok {
			return text, true
		}
	}
	return "", false
}

// Record puts answer down as server's, or nothing when its reference is on
// record with the same. References must be recorded first.
func (e *Exchange) Record(server, answer string) {
	delete(e.Recorded, server)
	if text, ok := e.Expected(server); !ok || text != answer {
		e.Recorded[server] = answer
	}
}

// Method is the request method as written.
func (e *Exchange) Method() string {
	method, _, _ := strings.Cut(e.Request, " ")
	return method
}

// LoadExchanges reads every group below dir in the order of the file names.
// Names must be unique over all groups.
func LoadExchanges(dir string) ([]*Exchange, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	var all []*Exchange
	seen := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		group := strings.TrimSuffix(filepath.Base(f), ".txt")
		_, list, err := ParseExchanges(group, string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		for _, e := range list {
			if other, dup := seen[e.Name]; dup {
				return nil, fmt.Errorf("%s: exchange %q is also in group %s", f, e.Name, other)
			}
			seen[e.Name] = group
		}
		all = append(all, list...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no exchanges in %s", dir)
	}
	return all, nil
}

// ParseExchanges reads one group file. The preamble is the text above the
// first exchange.
func ParseExchanges(group, text string) (preamble string, list []*Exchange, err error) {
	sections := strings.Split("\n"+text, "\n== ")
	preamble = strings.TrimPrefix(sections[0], "\n")
	for _, s := range sections[1:] {
		e := &Exchange{Group: group, Responses: 1, Recorded: map[string]string{}}
		e.Name, s, _ = strings.Cut(s, "\n")
		parts := strings.Split(s, "\n-- ")
		s = parts[0]
		for _, p := range parts[1:] {
			server, answer, _ := strings.Cut(p, "\n")
			e.Recorded[server] = strings.TrimRight(answer, "\n")
		}
		for {
			line, rest, _ := strings.Cut(s, "\n")
			switch {
			case strings.HasPrefix(line, "#"):
				e.Notes = append(e.Notes, strings.TrimSpace(line[1:]))
			case strings.HasPrefix(line, "@responses "):
				e.Responses, err = strconv.Atoi(line[len("@responses "):])
			case line == "@expect-continue":
				e.ExpectContinue = true
			case line == "@half-close":
				e.HalfClose = true
			case line == "@exact":
				e.Exact = true
			case line == "@body-varies":
				e.BodyVaries = true
			case line == "@raw":
				e.Raw = true
			case strings.HasPrefix(line, "@"):
				err = fmt.Errorf("unknown directive %q", line)
			default:
				e.Request = strings.TrimRight(s, "\n")
			}
			if err != nil {
				return "", nil, fmt.Errorf("exchange %s: %w", e.Name, err)
			}
			if e.Request != "" {
				break
			}
			if rest == "" {
				return "", nil, fmt.Errorf("exchange %s: no request", e.Name)
			}
			s = rest
		}
		list = append(list, e)
	}
	return preamble, list, nil
}

// Format writes e back in the form ParseExchanges reads.
func (e *Exchange) Format() string {
	var b strings.Builder
	fmt.Fprintf(&b, "== %s\n", e.Name)
	for _, n := range e.Notes {
		fmt.Fprintf(&b, "# %s\n", n)
	}
	if e.Responses != 1 {
		fmt.Fprintf(&b, "@responses %d\n", e.Responses)
	}
	directive := func(name string, on bool) {
		if on {
			b.WriteString(name + "\n")
		}
	}
	directive("@expect-continue", e.ExpectContinue)
	directive("@half-close", e.HalfClose)
	directive("@exact", e.Exact)
	directive("@body-varies", e.BodyVaries)
	directive("@raw", e.Raw)
	b.WriteString(e.Request + "\n")
	for _, server := range []string{Java343, Java336, EdekdJCEKS, EdekdSQLite} {
		if answer, ok := e.Recorded[server]; ok {
			fmt.Fprintf(&b, "-- %s\n%s\n", server, answer)
		}
	}
	return b.String()
}

// signingSecret signs the cookies that the exchanges make themselves; both
// servers are started with it as their signature secret file.
const signingSecret = "side-by-side"

// SignCookie appends the signature of Hadoop's signer to an authentication
// cookie's text.
func SignCookie(text string) string {
	mac := hmac.New(sha256.New, []byte(signingSecret))
	mac.Write([]byte(text))
	return text + "&s=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// Run is one pass over the list against one server. It remembers the answers,
// because later requests quote earlier ones.
type Run struct {
	Addr    string // host:port
	answers map[string][]*Answer
}

// NewRun starts a pass against the server at addr.
func NewRun(addr string) *Run {
	return &Run{Addr: addr, answers: map[string][]*Answer{}}
}

// Expand returns the head and the body to send. The template functions are
//
//	hex "00ff"          the bytes written in hexadecimal
//	repeat 3 "ab"       ababab
//	chunked "a" "bc"    the parts as a chunked body
//	sign "u=…"          a cookie value with its signature
//	cookie "alice"      a signed cookie of that user, valid for an hour
//	now 3600            epoch milliseconds, that many seconds from now
//	json "name" "0.iv"  a value out of the JSON answer to an earlier exchange
//	std "…"             URL-safe base64 rewritten in the standard alphabet
//	addr                host and port of the server
func (r *Run) Expand(e *Exchange) (head, body []byte, err error) {
	millis := func(seconds int) int64 {
		return time.Now().Add(time.Duration(seconds) * time.Second).UnixMilli()
	}
	t, err := template.New(e.Name).Funcs(template.FuncMap{
		"hex": func(s string) (string, error) {
			b, err := hex.DecodeString(s)
			return string(b), err
		},
		"repeat": func(n int, s string) string { return strings.Repeat(s, n) },
		"chunked": func(parts ...string) string {
			var b strings.Builder
			for _, p := range append(parts, "") {
				fmt.Fprintf(&b, "%x\r\n%s\r\n", len(p), p)
			}
			return b.String()
		},
		"sign": SignCookie,
		"cookie": func(user string) string {
			return SignCookie(fmt.Sprintf("u=%s&p=%s&t=simple-dt&e=%d", user, user, millis(3600)))
		},
		"now":  millis,
		"json": r.lookup,
		"std": func(s string) (string, error) {
			b, err := base64.RawURLEncoding.DecodeString(s)
			return base64.StdEncoding.EncodeToString(b), err
		},
		"addr": func() string { return r.Addr },
	}).Parse(e.Request)
	if err != nil {
		return nil, nil, err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, nil); err != nil {
		return nil, nil, err
	}
	if e.Raw {
		return b.Bytes(), nil, nil
	}
	if e.Responses > 1 {
		return r.pipeline(b.String(), e.Responses)
	}
	head, body = r.frame(b.String())
	return head, body, nil
}

// pipeline frames several requests written one after another, separated by
// lines of "++".
func (r *Run) pipeline(text string, n int) (head, body []byte, err error) {
	parts := strings.Split(text, "\n++\n")
	if len(parts) != n {
		return nil, nil, fmt.Errorf("%d requests but %d answers wanted", len(parts), n)
	}
	for _, p := range parts {
		h, b := r.frame(p)
		head = append(append(head, h...), b...)
	}
	return head, nil, nil
}

func (r *Run) frame(text string) (head, body []byte) {
	top, rest, hasBody := strings.Cut(text, "\n\n")
	lines := strings.Split(top, "\n")
	if !strings.HasSuffix(lines[0], " HTTP/1.0") && !strings.HasSuffix(lines[0], " HTTP/1.1") {
		lines[0] += " HTTP/1.1"
	}
	var host, framed bool
	kept := lines[:1]
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		switch strings.ToLower(name) {
		case "host":
			host = true
			if strings.TrimSpace(value) == "-" {
				continue
			}
		case "content-length", "transfer-encoding":
			framed = true
		}
		kept = append(kept, l)
	}
	if !host {
		kept = append(kept, "Host: "+r.Addr)
	}
	if hasBody && !framed {
		kept = append(kept, fmt.Sprintf("Content-Length: %d", len(rest)))
	}
	return []byte(strings.Join(kept, "\r\n") + "\r\n\r\n"), []byte(rest)
}

// lookup finds a value in the JSON body that answered an earlier exchange. The
// path's segments are member names and array indexes, separated by dots.
func (r *Run) lookup(name, path string) (string, error) {
	answers := r.answers[name]
	if len(answers) == 0 {
		return "", fmt.Errorf("no earlier exchange %q", name)
	}
	var v any
	if err := json.Unmarshal(answers[len(answers)-1].Body, &v); err != nil {
		// The exchange that quotes this one is sent all the same, so that a
		// single wrong answer doesn't end the run.
		return "unavailable", nil
	}
	for _, seg := range strings.Split(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			v = at[seg]
		case []any:
			i, err := strconv.Atoi(seg)
			if err != nil || i >= len(at) {
				return "unavailable", nil
			}
			v = at[i]
		default:
			return "unavailable", nil
		}
	}
	s, ok := v.(string)
	if !ok {
		return "unavailable", nil
	}
	return s, nil
}
