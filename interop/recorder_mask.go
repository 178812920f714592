package interop

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Masker rewrites the answers of one run so that two servers can be compared
// byte for byte: what must differ between two correct servers (random bytes,
// times, ports, paths) becomes a word, everything else stays.
//
// Random base64 values are not only hidden. Each gets the name of the exchange
// that brought it first, so that a value that must come back later (a version's
// material, the IV of a re-encrypted key) still has to be the same one.
type Masker struct {
	addr, dir, provider string
	seen                map[string]string
}

// NewMasker returns a masker for the answers of one server: addr is where it
// listens, dir the folder that holds its configuration and provider the URI of
// its key provider.
func NewMasker(addr, dir, provider string) *Masker {
	return &Masker{addr: addr, dir: dir, provider: provider, seen: map[string]string{}}
}

// uncompared are headers that no client reads, or that repeat what is compared
// elsewhere: how the body was framed, when the answer was made.
var uncompared = map[string]bool{
	"date":              true,
	"content-length":    true,
	"transfer-encoding": true,
	"last-modified":     true,
	"x-edekd-batch":     true, // edekd's announcement of _decryptbatch, which Java does not have
}

var (
	secretMember  = regexp.MustCompile(`"(material|iv)" : "([A-Za-z0-9_-]{20,})"`)
	createdMember = regexp.MustCompile(`"created" : [0-9]{13}\b`)
	tokenMember   = regexp.MustCompile(`"urlString":"[A-Za-z0-9_-]+"`)
	auditInterval = regexp.MustCompile(`interval=[0-9]+ms`)
	cookieTime    = regexp.MustCompile(`\b(e|i)=[0-9]{13}\b`)
	cookieSign    = regexp.MustCompile(`&s=[A-Za-z0-9+/]{43}=`)
	stackTrace    = regexp.MustCompile(`(\n\s+at [^\n]+|\n\s+\.\.\. [0-9]+ more)+`)
	currentTime   = regexp.MustCompile(`currentTime: [-0-9]+ [0-9:,]+\+0000`)
	objectHash    = regexp.MustCompile(`\b(WebServlet)-[0-9a-f]+`)
	httpDate      = regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9A-Za-z :]+ GMT\b`)
)

// Mask returns the comparable text of the answers to e.
func (m *Masker) Mask(e *Exchange, answers []*Answer) []*Masked {
	var list []*Masked
	for _, a := range answers {
		c := &Masked{Status: a.Status, Reason: m.text(a.Reason), Headers: map[string]string{}, Broken: a.Broken, Interim: len(a.Interim)}
		for _, h := range a.Headers {
			name := strings.ToLower(h.Name)
			if uncompared[name] || c.Headers[name] != "" {
				continue
			}
			c.Headers[name] = httpDate.ReplaceAllString(m.text(a.Get(name)), "DATE")
		}
		if e.BodyVaries && len(a.Body) > 0 {
			c.Body = "(a body that varies)"
		} else {
			c.Body = m.body(e, string(a.Body))
		}
		list = append(list, c)
	}
	return list
}

func (m *Masker) text(s string) string {
	s = strings.ReplaceAll(s, m.provider, "PROVIDER")
	s = strings.ReplaceAll(s, m.dir, "DIR")
	s = strings.ReplaceAll(s, m.addr, "HOST:PORT")
	s = cookieTime.ReplaceAllString(s, "$1=TIME")
	s = cookieSign.ReplaceAllString(s, "&s=SIGNATURE")
	s = currentTime.ReplaceAllString(s, "currentTime: TIME")
	return foldRepeats(s)
}

// Audit returns the comparable text of audit lines.
func (m *Masker) Audit(lines []string) []string {
	masked := make([]string, len(lines))
	for i, line := range lines {
		masked[i] = auditInterval.ReplaceAllString(m.text(line), "interval=TIME")
	}
	return masked
}

func (m *Masker) body(e *Exchange, s string) string {
	if !e.Exact {
		s = secretMember.ReplaceAllStringFunc(s, func(member string) string {
			parts := secretMember.FindStringSubmatch(member)
			value := parts[2]
			if m.seen[value] == "" {
				m.seen[value] = fmt.Sprintf("%d characters of %s", len(value), e.Name)
			}
			return fmt.Sprintf(`"%s" : "(%s)"`, parts[1], m.seen[value])
		})
	}
	s = createdMember.ReplaceAllString(s, `"created" : TIME`)
	s = tokenMember.ReplaceAllString(s, `"urlString":"TOKEN"`)
	s = objectHash.ReplaceAllString(s, "$1-HASH")
	s = stackTrace.ReplaceAllString(s, "\n\tat STACK")
	s = m.text(s)
	if len(s) > maxRecorded {
		s = s[:maxRecorded] + fmt.Sprintf("… (%d bytes)", len(s))
	}
	return s
}

// maxRecorded cuts bodies for the record. The comparison sees the same text, so
// what lies behind the cut counts by its length only.
const maxRecorded = 2000

// foldRepeats writes runs of 100 and more equal characters as x{n}.
func foldRepeats(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		n := 1
		for i+n < len(s) && s[i+n] == s[i] {
			n++
		}
		if n >= 100 {
			fmt.Fprintf(&b, "%c{%d}", s[i], n)
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Masked is an answer in comparable form.
type Masked struct {
	Interim int // how many 100 Continue came before
	Status  int
	Reason  string
	Headers map[string]string // by lower-case name
	Body    string
	Broken  string
	Audit   []string // the lines of the audit log, where they are compared
}

// ordinary headers stand on nearly every answer of the KMS; the record names them
// only where they are missing or different.
var ordinary = []Header{
	{"cache-control", "no-cache"},
	{"expires", "DATE"},
	{"pragma", "no-cache"},
	{"x-content-type-options", "nosniff"},
	{"x-xss-protection", "1; mode=block"},
}

// answerSeparator stands between the answers to one pipelined exchange.
const answerSeparator = "\n++\n"

// FormatMasked writes the answers to one exchange as they stand in the exchange
// files: status line, headers other than the ordinary ones, body, audit lines. A
// line break that ends a body is written as ⏎.
func FormatMasked(answers []*Masked) string {
	texts := make([]string, len(answers))
	for i, a := range answers {
		texts[i] = a.format()
	}
	return strings.Join(texts, answerSeparator)
}

func (c *Masked) format() string {
	var b strings.Builder
	for range c.Interim {
		b.WriteString("(100 Continue)\n")
	}
	if c.Status != 0 {
		fmt.Fprintf(&b, "%d %s\n", c.Status, c.Reason)
		usual := map[string]string{}
		for _, h := range ordinary {
			usual[h.Name] = h.Value
			if _, ok := c.Headers[h.Name]; !ok {
				fmt.Fprintf(&b, "(without %s)\n", h.Name)
			}
		}
		for _, n := range slices.Sorted(maps.Keys(c.Headers)) {
			if value := c.Headers[n]; usual[n] != value {
				fmt.Fprintf(&b, "%s: %s\n", n, value)
			}
		}
		if c.Body != "" {
			text := strings.TrimRight(c.Body, "\n")
			fmt.Fprintf(&b, "\n%s%s\n", text, strings.Repeat("⏎", len(c.Body)-len(text)))
		}
	}
	if c.Broken != "" {
		fmt.Fprintf(&b, "(broken: %s)\n", c.Broken)
	}
	for _, line := range c.Audit {
		fmt.Fprintf(&b, "%s%s|\n", auditMark, line)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// auditMark begins a line of the audit log in a record; a | ends it, so that
// its last space is seen.
const auditMark = "(audit) "

// ParseMasked reads what FormatMasked wrote.
func ParseMasked(text string) ([]*Masked, error) {
	var list []*Masked
	for _, t := range strings.Split(text, answerSeparator) {
		c, err := parseMasked(t)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

func parseMasked(text string) (*Masked, error) {
	c := &Masked{Headers: map[string]string{}}
	for {
		i := strings.LastIndexByte(text, '\n')
		line, ok := strings.CutPrefix(text[i+1:], auditMark)
		if !ok || i < 0 {
			break
		}
		c.Audit = slices.Insert(c.Audit, 0, strings.TrimSuffix(line, "|"))
		text = text[:i]
	}
	if i := strings.LastIndex("\n"+text, "\n(broken: "); i >= 0 {
		c.Broken = strings.TrimSuffix(text[i+len("(broken: "):], ")")
		text = strings.TrimSuffix(text[:i], "\n")
	}
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(head, "\n")
	for len(lines) > 0 && lines[0] == "(100 Continue)" {
		c.Interim++
		lines = lines[1:]
	}
	if len(lines) == 0 || lines[0] == "" {
		return c, nil
	}
	code, reason, _ := strings.Cut(lines[0], " ")
	status, err := strconv.Atoi(code)
	if err != nil {
		return nil, fmt.Errorf("recorded answer begins with %q", lines[0])
	}
	c.Status, c.Reason = status, reason
	for _, h := range ordinary {
		c.Headers[h.Name] = h.Value
	}
	for _, l := range lines[1:] {
		if name, ok := strings.CutPrefix(l, "(without "); ok {
			delete(c.Headers, strings.TrimSuffix(name, ")"))
			continue
		}
		name, value, _ := strings.Cut(l, ": ")
		c.Headers[name] = value
	}
	trimmed := strings.TrimRight(body, "⏎")
	c.Body = trimmed + strings.Repeat("\n", strings.Count(body[len(trimmed):], "⏎"))
	return c, nil
}

// Differences names the parts in which two answers to the same exchange differ:
// "answers" (their number), "interim", "status", "reason", "connection" (how it
// ended), "body", "audit", or "header NAME". Allow is not compared on OPTIONS: clients
// don't read it and Jersey 2 fills it differently.
func Differences(method string, a, b []*Masked) []string {
	if len(a) != len(b) {
		return []string{"answers"}
	}
	found := map[string]bool{}
	for i := range a {
		x, y := a[i], b[i]
		if x.Interim != y.Interim {
			found["interim"] = true
		}
		if x.Status != y.Status {
			found["status"] = true
		}
		if x.Reason != y.Reason {
			found["reason"] = true
		}
		if x.Broken != y.Broken {
			found["connection"] = true
		}
		if x.Body != y.Body {
			found["body"] = true
		}
		if !slices.Equal(x.Audit, y.Audit) {
			found["audit"] = true
		}
		for n, v := range x.Headers {
			if y.Headers[n] != v {
				found["header "+n] = true
			}
		}
		for n, v := range y.Headers {
			if x.Headers[n] != v {
				found["header "+n] = true
			}
		}
	}
	if method == "OPTIONS" {
		delete(found, "header allow")
	}
	return slices.Sorted(maps.Keys(found))
}
