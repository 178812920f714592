// Package jmx answers /jmx and /kms/jmx: Hadoop's page of JMX beans as JSON,
// which is what monitors of a Java KMS read. There is no JMX behind it. A bean
// is a name, a type and a function that says what its attributes are now; the
// page has the names, attribute names and JSON style of JMXJsonServlet, so that
// a monitor goes on finding what it looked for. Where a Java figure has no
// counterpart in Go the attribute is left out rather than invented.
package jmx

import (
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Attr is one attribute of a bean. Value is nil, a string, bool, int, int64,
// uint64, float64, float32 or, for a composite, []Attr.
type Attr struct {
	Name  string
	Value any
}

type bean struct {
	name   string
	parsed pattern
	kind   string
	read   func() []Attr
}

// Registry holds the beans of one process. Its methods are safe for concurrent
// use.
type Registry struct {
	process string
	host    string
	started time.Time

	mu     sync.RWMutex
	beans  []bean // in the order they are shown
	meters map[string]*Meter
}

// New makes a registry with the beans that describe the process itself:
// Hadoop:service=P,name=JvmMetrics and Memory, Runtime and Threading of
// java.lang. ProcessName is hadoop.kms.metrics.process.name, "KMS" by default.
func New(processName string) *Registry {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	r := &Registry{process: processName, host: host, started: time.Now(), meters: make(map[string]*Meter)}
	r.addProcessBeans()
	return r
}

// Add shows a bean. Name is its ObjectName ("domain:key=value,…", no wildcards);
// kind is shown as modelerType; read is called whenever the bean is shown, from
// any goroutine. Add panics when name is no ObjectName: names are ours.
func (r *Registry) Add(name, kind string, read func() []Attr) {
	parsed, ok := parsePattern(name)
	if !ok || strings.ContainsAny(name, "*?") {
		panic("jmx: not the name of a bean: " + name)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beans = append(r.beans, bean{name: name, parsed: parsed, kind: kind, read: read})
}

// Meter returns the meter shown as metrics:name=<name>, made at the first call.
func (r *Registry) Meter(name string) *Meter {
	r.mu.Lock()
	m, ok := r.meters[name]
	if !ok {
		m = newMeter(time.Now())
		r.meters[name] = m
	}
	r.mu.Unlock()
	if !ok {
		r.Add("metrics:name="+name, "com.codahale.metrics.JmxReporter$JmxMeter", m.attrs)
	}
	return m
}

// HTTPStats are the figures of an HTTP server, counted since its start.
type HTTPStats struct {
	Requests  uint64
	Responses [5]uint64 // by status class, 1xx first
}

// AddHTTPServer shows the bean that Hadoop has for each of its listeners,
// named by the port.
func (r *Registry) AddHTTPServer(port string, read func() HTTPStats) {
	started := time.Now()
	name := "HttpServer2-" + port
	r.Add("Hadoop:service="+r.process+",name="+name, name, func() []Attr {
		s := read()
		return []Attr{
			{"tag.Context", "http"},
			{"tag.Hostname", r.host},
			{"Responses1xx", s.Responses[0]},
			{"Responses2xx", s.Responses[1]},
			{"Responses3xx", s.Responses[2]},
			{"Responses4xx", s.Responses[3]},
			{"Responses5xx", s.Responses[4]},
			{"StatsOnMs", time.Since(started).Milliseconds()},
			{"Requests", s.Requests},
		}
	})
}

// Handle answers one request. Query returns a query parameter, decoded, and
// whether the request has it: `qry` selects beans by an ObjectName pattern,
// `get` one attribute ("bean::attribute") and wins when both are there.
//
// Status is the one the servlet means: 400 for a malformed parameter, 404 for
// an attribute that is not there. Hadoop sets it after the body has gone out
// already, so its clients see 200 with "result" : "ERROR", or `{ }`, and only
// hadoop.kms.invalid.calls.meter counts the difference (seen on 3.4.3). To be
// mistaken for Hadoop, answer 200 whatever Handle says. The Content-Type is
// ContentType; Access-Control-Allow-Methods "GET" and
// Access-Control-Allow-Origin "*" belong with it.
func (r *Registry) Handle(query func(name string) (value string, ok bool)) (status int, body []byte) {
	var attribute string
	name := "*:*"
	if get, ok := query("get"); ok {
		name, attribute, ok = splitGet(quoteHTML.Replace(get))
		if !ok {
			return http.StatusBadRequest, appendObject(nil, 0, failure("query format is not as expected."))
		}
	} else if qry, ok := query("qry"); ok {
		name = quoteHTML.Replace(qry)
	}
	p, ok := parsePattern(name)
	if !ok {
		return http.StatusBadRequest, []byte("{ }")
	}
	return r.render(p, attribute)
}

// ContentType is what Hadoop sends the page as; the charset is its spelling.
const ContentType = "application/json; charset=utf8"

// splitGet cuts "bean::attribute" as Java's split("::") does, which ignores
// empty parts at the end but not elsewhere.
func splitGet(s string) (name, attribute string, ok bool) {
	parts := strings.Split(s, "::")
	for len(parts) > 0 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	if len(parts) != 2 {
		return "", "", false
	}
	return parts[0], parts[1], true
}

func failure(message string) []Attr {
	return []Attr{{"result", "ERROR"}, {"message", message}}
}

// render shows the beans that p matches, whole or with one attribute. Like
// Hadoop it stops at the first bean without the attribute.
func (r *Registry) render(p pattern, attribute string) (status int, body []byte) {
	r.mu.RLock()
	beans := r.beans[:len(r.beans):len(r.beans)]
	r.mu.RUnlock()

	status = http.StatusOK
	b := append([]byte(nil), "{\n  \"beans\" : [ "...)
	shown := 0
	for _, bean := range beans {
		if !p.match(bean.parsed) {
			continue
		}
		attrs := bean.read()
		if attribute != "" {
			one := find(attrs, attribute)
			if one == nil {
				status = http.StatusNotFound
				one = failure("No attribute with name " + attribute + " was found.")
			}
			attrs = one
		}
		if shown > 0 {
			b = append(b, ", "...)
		}
		shown++
		b = appendObject(b, 1, append([]Attr{{"name", bean.name}, {"modelerType", bean.kind}}, attrs...))
		if status != http.StatusOK {
			break
		}
	}
	if shown > 0 {
		b = append(b, ' ')
	}
	return status, append(b, "]\n}"...)
}

// find returns the attribute called name, nil when there is none or it is null.
func find(attrs []Attr, name string) []Attr {
	for i, a := range attrs {
		if a.Name == name && a.Value != nil {
			return attrs[i : i+1]
		}
	}
	return nil
}
