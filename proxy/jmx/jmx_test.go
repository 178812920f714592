package jmx

import (
	"bufio"
	"encoding/json"
	"math"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// ask sends a request with parameters given as name, value pairs.
func ask(r *Registry, params ...string) (int, string) {
	status, body := r.Handle(func(name string) (string, bool) {
		for i := 0; i < len(params); i += 2 {
			if params[i] == name {
				return params[i+1], true
			}
		}
		return "", false
	})
	return status, string(body)
}

// The answers of a Java KMS 3.4.3, with the statuses its servlet meant.
func TestAnswersAreHadoops(t *testing.T) {
	r := New("KMS")
	r.Add("t:type=Memory", "sun.management.MemoryImpl", func() []Attr {
		return []Attr{
			{"Verbose", false},
			{"Nothing", nil},
			{"HeapMemoryUsage", []Attr{{"committed", uint64(59768832)}, {"max", int64(-1)}}},
			{"Used", float32(30.253204)},
			{"ObjectName", "t:type=Memory"},
		}
	})
	r.Add("t:type=Other", "Other", func() []Attr { return []Attr{{"Count", 1}} })

	f := func(param, value string, wantStatus int, want ...string) {
		t.Helper()
		status, body := ask(r, param, value)
		if status != wantStatus || body != strings.Join(want, "\n") {
			t.Errorf("%s=%s: %d\n%s\nwant %d\n%s", param, value, status, body, wantStatus, strings.Join(want, "\n"))
		}
	}
	f("qry", "t:*", 200,
		`{`,
		`  "beans" : [ {`,
		`    "name" : "t:type=Memory",`,
		`    "modelerType" : "sun.management.MemoryImpl",`,
		`    "Verbose" : false,`,
		`    "Nothing" : null,`,
		`    "HeapMemoryUsage" : {`,
		`      "committed" : 59768832,`,
		`      "max" : -1`,
		`    },`,
		`    "Used" : 30.253204,`,
		`    "ObjectName" : "t:type=Memory"`,
		`  }, {`,
		`    "name" : "t:type=Other",`,
		`    "modelerType" : "Other",`,
		`    "Count" : 1`,
		`  } ]`,
		`}`)
	f("qry", "nothing:*", 200, "{\n  \"beans\" : [ ]\n}")
	f("qry", "bad", 400, "{ }")
	f("qry", "a:b=c,b=d", 400, "{ }")
	f("qry", `a:b="q`, 200, "{\n  \"beans\" : [ ]\n}") // no quotes in Hadoop's queries
	f("get", "t:type=Other::Count", 200,
		`{`,
		`  "beans" : [ {`,
		`    "name" : "t:type=Other",`,
		`    "modelerType" : "Other",`,
		`    "Count" : 1`,
		`  } ]`,
		`}`)
	missing := func(attribute string) []string {
		return []string{
			`{`,
			`  "beans" : [ {`,
			`    "name" : "t:type=Memory",`,
			`    "modelerType" : "sun.management.MemoryImpl",`,
			`    "result" : "ERROR",`,
			`    "message" : "No attribute with name ` + attribute + ` was found."`,
			`  } ]`,
			`}`,
		}
	}
	f("get", "t:type=Memory::Nope", 404, missing("Nope")...)
	f("get", "t:type=Memory::modelerType", 404, missing("modelerType")...)
	f("get", "t:type=Memory::Nothing", 404, missing("Nothing")...)
	f("get", "t:*::Count", 404, missing("Count")...)
	f("get", "t:type=Memory::b\x01\x1b\x7fé\"/<\u2028😀\xff", 404, missing(`b\u0001\u001B`+"\x7fé&quot;/&lt;\u2028😀\ufffd")...)
	f("get", "a:b=c::d", 200, "{\n  \"beans\" : [ ]\n}")
	f("get", "bad::Count", 400, "{ }")
	unexpected := []string{`{`, `  "result" : "ERROR",`, `  "message" : "query format is not as expected."`, `}`}
	for _, get := range []string{"x", "a::b::c", "", "::", "t:type=Memory::"} {
		f("get", get, 400, unexpected...)
	}
	f("get", "t:type=Other::Count::", 200, strings.Split(func() string { _, b := ask(r, "get", "t:type=Other::Count"); return b }(), "\n")...)

	if _, whole := ask(r); !strings.Contains(whole, "JvmMetrics") || !strings.Contains(whole, "t:type=Other") {
		t.Errorf("no parameter does not show all beans: %s", whole)
	}
	if _, both := ask(r, "qry", "bad", "get", "t:type=Other::Count"); !strings.Contains(both, "Other") {
		t.Errorf("get does not win over qry: %s", both)
	}
}

func TestPatternsMatchAsInTheJDK(t *testing.T) {
	file, err := os.Open("testdata/objectnames.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var names []pattern
	lines := 0
	for s := bufio.NewScanner(file); s.Scan(); {
		line := s.Text()
		if strings.HasPrefix(line, "#   ") {
			for _, name := range strings.Fields(line[1:]) {
				p, ok := parsePattern(name)
				if !ok {
					t.Fatalf("%q is no name", name)
				}
				names = append(names, p)
			}
		}
		query, want, ok := strings.Cut(line, "\t")
		if !ok {
			continue
		}
		lines++
		query = strings.NewReplacer(`\\`, `\`, `\n`, "\n").Replace(query)
		got := "bad"
		if p, ok := parsePattern(query); ok {
			got = "ok "
			for _, name := range names {
				if p.match(name) {
					got += "1"
				} else {
					got += "0"
				}
			}
		}
		if got != want {
			t.Errorf("%q: %s, the JDK says %s", query, got, want)
		}
	}
	if lines < 100 || len(names) != 5 {
		t.Errorf("only %d queries on %d names", lines, len(names))
	}
}

// slowWild is wildMatch as its definition reads.
func slowWild(w, s string) bool {
	switch {
	case w == "":
		return s == ""
	case w[0] == '*':
		return slowWild(w[1:], s) || s != "" && slowWild(w, s[1:])
	default:
		return s != "" && (w[0] == '?' || w[0] == s[0]) && slowWild(w[1:], s[1:])
	}
}

func FuzzWildMatch(f *testing.F) {
	f.Add("a*b?c*", "aXXbYcZ")
	f.Add("**?", "")
	f.Add("*ab*ab", "abab")
	f.Fuzz(func(t *testing.T, w, s string) {
		if len(w) > 12 || len(s) > 12 {
			return
		}
		if got, want := wildMatch(w, s), slowWild(w, s); got != want {
			t.Errorf("wildMatch(%q, %q) = %v", w, s, got)
		}
	})
}

func FuzzHandle(f *testing.F) {
	f.Add("qry", "metrics:*")
	f.Add("get", "java.lang:type=Memory::HeapMemoryUsage")
	f.Add("get", "*:*::\x00\xff")
	r := New("KMS")
	r.Meter("hadoop.kms.key.calls.meter").Mark()
	f.Fuzz(func(t *testing.T, param, value string) {
		status, body := ask(r, param, value)
		if !json.Valid([]byte(body)) || !utf8.ValidString(body) {
			t.Errorf("%s=%q: %q is no JSON", param, value, body)
		}
		if status != 200 && status != 400 && status != 404 {
			t.Errorf("%s=%q: status %d", param, value, status)
		}
	})
}

func TestFloatsAreJavas(t *testing.T) {
	f := func(v float64, want string) {
		t.Helper()
		if got := string(appendFloat(nil, v, 64)); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
	f(0, "0.0")
	f(1, "1.0")
	f(-1, "-1.0")
	f(0.006642043737298156, "0.006642043737298156")
	f(0.001, "0.001")
	f(0.00042, "4.2E-4")
	f(1e-10, "1.0E-10")
	f(9999999, "9999999.0")
	f(1e7, "1.0E7")
	f(-1.25e23, "-1.25E23")
	f(math.NaN(), "0.0")
	f(math.Inf(-1), "0.0")
}

func rates(m *Meter) (one, five, fifteen, mean float64) {
	a := m.attrs()
	return a[4].Value.(float64), a[2].Value.(float64), a[1].Value.(float64), a[3].Value.(float64)
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-9*max(1, math.Abs(want)) }

func TestMeterStepByStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("KMS").Meter("x")
		mark := func(n int) {
			for range n {
				m.Mark()
			}
		}
		check := func(when string, one, five, fifteen, mean float64) {
			t.Helper()
			g1, g5, g15, gm := rates(m)
			if !near(g1, one) || !near(g5, five) || !near(g15, fifteen) || !near(gm, mean) {
				t.Errorf("%s: %v %v %v mean %v, want %v %v %v mean %v", when, g1, g5, g15, gm, one, five, fifteen, mean)
			}
		}
		check("new", 0, 0, 0, 0)
		mark(50)
		time.Sleep(4 * time.Second)
		check("before the first tick only the mean is known", 0, 0, 0, 12.5)
		time.Sleep(time.Second)
		check("the first tick takes the rate as it is", 10, 10, 10, 10)
		check("reading twice changes nothing", 10, 10, 10, 10)

		// Half a minute without events, read late or in steps, decays alike.
		time.Sleep(15 * time.Second)
		rates(m)
		time.Sleep(15 * time.Second)
		check("decay", 10*math.Exp(-0.5), 10*math.Exp(-0.1), 10*math.Exp(-0.5/15), 50.0/35)

		// A steady rate is reached whatever was before.
		for range 600 {
			mark(30)
			time.Sleep(10 * time.Second)
		}
		one, five, _, _ := rates(m)
		if !near(one, 3) || math.Abs(five-3) > 1e-6 {
			t.Errorf("steady 3/s reads as %v and %v", one, five)
		}
		if m.Count() != 50+600*30 {
			t.Errorf("count %d", m.Count())
		}
	})
}

func TestMeterReadOffTheTickCountsEachEventOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New("KMS").Meter("x")
		for range 200 {
			for range 7 {
				m.Mark()
			}
			time.Sleep(7 * time.Second)
			rates(m)
		}
		if one, _, _, mean := rates(m); !near(one, 1) || !near(mean, 1) {
			t.Errorf("one event a second reads as %v, mean %v", one, mean)
		}
	})
}

func TestMeterBean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New("KMS")
		m := r.Meter("hadoop.kms.key.calls.meter")
		if r.Meter("hadoop.kms.key.calls.meter") != m {
			t.Error("a second meter of the same name")
		}
		m.Mark()
		time.Sleep(tick)
		status, body := ask(r, "qry", "metrics:name=hadoop.kms.*")
		const want = `{
  "beans" : [ {
    "name" : "metrics:name=hadoop.kms.key.calls.meter",
    "modelerType" : "com.codahale.metrics.JmxReporter$JmxMeter",
    "Count" : 1,
    "FifteenMinuteRate" : 0.2,
    "FiveMinuteRate" : 0.2,
    "MeanRate" : 0.2,
    "OneMinuteRate" : 0.2,
    "RateUnit" : "events/second"
  } ]
}`
		if status != http.StatusOK || body != want {
			t.Errorf("%d %s", status, body)
		}
	})
}

func TestMeterAllocatesNothingWhenMarked(t *testing.T) {
	m := New("KMS").Meter("x")
	if n := testing.AllocsPerRun(1000, m.Mark); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestConcurrentUse(t *testing.T) {
	r := New("KMS")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				r.Meter("x").Mark()
				ask(r, "qry", "metrics:*")
			}
		})
	}
	wg.Wait()
	if n := r.Meter("x").Count(); n != 800 {
		t.Errorf("%d marks", n)
	}
}

// What monitors read of the process, by the names they know.
func TestProcessBeansHavePlausibleFigures(t *testing.T) {
	r := New("KMS")
	r.AddHTTPServer("9600", func() HTTPStats {
		return HTTPStats{Requests: 6, Responses: [5]uint64{1, 2, 3, 4, 5}}
	})
	_, body := ask(r)
	var page struct {
		Beans []map[string]any `json:"beans"`
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		t.Fatal(err)
	}
	beans := make(map[any]map[string]any)
	for _, b := range page.Beans {
		beans[b["name"]] = b
	}
	f := func(bean, attribute string, low, high float64) {
		t.Helper()
		v, ok := beans[bean][attribute].(float64)
		if !ok || v < low || v > high {
			t.Errorf("%s of %s is %v", attribute, bean, beans[bean][attribute])
		}
	}
	const terabyte = 1 << 40
	jvm := "Hadoop:service=KMS,name=JvmMetrics"
	f(jvm, "MemHeapUsedM", 0.01, 1<<20)
	f(jvm, "MemHeapCommittedM", 0.01, 1<<20)
	f(jvm, "MemNonHeapUsedM", 0.01, 1<<20)
	f(jvm, "GcCount", 0, 1e9)
	f(jvm, "GcTimeMillis", 0, 1e6)
	f(jvm, "ThreadsRunnable", 1, 1e6)
	f(jvm, "ThreadsWaiting", 0, 1e6)
	if beans[jvm]["tag.ProcessName"] != "KMS" {
		t.Errorf("process name %v", beans[jvm]["tag.ProcessName"])
	}
	heap, ok := beans["java.lang:type=Memory"]["HeapMemoryUsage"].(map[string]any)
	if used, committed := heap["used"].(float64), heap["committed"].(float64); !ok || used <= 0 || committed < used || committed > terabyte {
		t.Errorf("heap %v", heap)
	}
	f("java.lang:type=Runtime", "Pid", float64(os.Getpid()), float64(os.Getpid()))
	f("java.lang:type=Runtime", "Uptime", 0, 1e6)
	f("java.lang:type=Threading", "ThreadCount", 1, 1e6)
	f("java.lang:type=Threading", "TotalStartedThreadCount", 1, 1e9)
	http := "Hadoop:service=KMS,name=HttpServer2-9600"
	f(http, "Requests", 6, 6)
	f(http, "Responses2xx", 2, 2)
	f(http, "Responses5xx", 5, 5)
}

func TestAddRefusesWhatIsNoName(t *testing.T) {
	for _, name := range []string{"x", "a:*", "a:b=c,*", "a:b=c?"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q was taken", name)
				}
			}()
			New("KMS").Add(name, "", nil)
		}()
	}
}
