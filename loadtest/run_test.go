package loadtest

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edekd/edekd/loadtest/cpu"
	"github.com/edekd/edekd/loadtest/edekfile"
	"github.com/edekd/edekd/loadtest/login"
	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/target"
)

// small is a load of a second that any machine can bear.
func small(profile Profile, targets ...*server) *Options {
	o := &Options{
		Profile: profile, Identities: []*login.Identity{login.Simple("hdfs")}, Kind: "simple",
		Rates: []float64{100}, Hold: time.Second, Connections: 4, Timeout: 20 * time.Second,
		CreateKeys: 3, EDEKsPerKey: 5, Skew: 1.1, Batch: 20,
	}
	for _, t := range targets {
		o.Targets = append(o.Targets, t.target)
	}
	return o
}

func mustRun(t *testing.T, o *Options) *result.Result {
	t.Helper()
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// clean fails the test when an operation of a step failed, and returns how often
// each was answered.
func clean(t *testing.T, s *result.Step) map[string]int64 {
	t.Helper()
	counts := map[string]int64{}
	for _, o := range s.Operations {
		counts[o.Name] = o.Answered
		if o.Failed > 0 {
			t.Errorf("%s failed %d times: %+v", o.Name, o.Failed, o.Errors)
		}
		if l := o.Latency; l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max {
			t.Errorf("%s: latencies %+v", o.Name, l)
		}
	}
	return counts
}

func TestProfiles(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	f := func(profile Profile, rate float64, check func(counts map[string]int64, step *result.Step)) {
		t.Run(string(profile), func(t *testing.T) {
			o := small(profile, s)
			o.Rates = []float64{rate}
			res := mustRun(t, o)
			if len(res.Steps) != 1 || res.Profile != string(profile) || res.Interrupted || res.Keys != 3 {
				t.Fatalf("%+v", res)
			}
			counts := clean(t, &res.Steps[0])
			check(counts, &res.Steps[0])
			for name := range counts {
				op, _ := result.ParseOp(name)
				if !slices.Contains(profile.Operations(), op) {
					t.Errorf("%s is no operation of %s", name, profile)
				}
			}
		})
	}
	f(Clients, 100, func(counts map[string]int64, step *result.Step) {
		if counts["decrypt"] != 100 || step.Operations[0].EDEKs != 100 {
			t.Errorf("%v", counts)
		}
	})
	f(NameNode, 50, func(counts map[string]int64, step *result.Step) {
		if n := step.Operations[0].EDEKs; counts["refill"] != 50 || n < 50*refillFewest || n > 50*refillMost {
			t.Errorf("%v, %d encrypted keys", counts, n)
		}
	})
	f(Mixed, 400, func(counts map[string]int64, _ *result.Step) {
		if counts["decrypt"] < 300 || counts["generate"] == 0 || counts["decrypt"]+counts["generate"]+counts["refill"]+counts["metadata"] != 400 {
			t.Errorf("%v", counts)
		}
	})
	f(Reencrypt, 50, func(counts map[string]int64, step *result.Step) {
		if counts["reencrypt"] != 50 || step.Operations[0].EDEKs != 50*20 {
			t.Errorf("%v", counts)
		}
	})
	f(LoginStorm, 50, func(counts map[string]int64, _ *result.Step) {
		if counts["login"] != 50 || counts["first-decrypt"] != 50 {
			t.Errorf("%v", counts)
		}
	})
}

// TestRollovers has two servers: a rollover tells the one it went to and then both.
func TestRollovers(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	o := small(NameNode, s, s)
	o.RollEvery = 300 * time.Millisecond
	res := mustRun(t, o)
	counts := clean(t, &res.Steps[0])
	if rolls := counts["roll"]; rolls < 1 || rolls > 3 || counts["invalidate"] != 3*rolls || counts["refill"]+rolls != 100 {
		t.Errorf("%v", counts)
	}
}

// TestStepsAndUsage: two steps with ramps, every arrival in its place, and what the
// server used, from its process and from its own page.
func TestStepsAndUsage(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	for _, meter := range []cpu.Meter{cpu.Process(s.pid), cpu.NewMetrics("http://"+s.target.Addr+"/metrics", nil)} {
		o := small(Clients, s)
		o.Rates, o.Hold, o.Ramp = []float64{200, 400}, time.Second, 200*time.Millisecond
		o.Meters = []cpu.Meter{meter}
		var phases []string
		o.Progress = func(p Progress) { phases = append(phases, p.Phase) }
		res := mustRun(t, o)
		if len(res.Steps) != 2 || len(res.Series) < 2 {
			t.Fatalf("%d steps, %d points", len(res.Steps), len(res.Series))
		}
		for i, want := range []int64{200, 400} {
			step := &res.Steps[i]
			if counts := clean(t, step); counts["decrypt"] != want || step.Asked != float64(want) || step.Seconds != 1 {
				t.Errorf("step %d: %+v", i, step)
			}
			u := step.Server
			if u == nil || u.Source != meter.String() || u.Requests < 1 || u.Requests > want+2*4 || u.ResidentBytes < 1<<20 || u.IdleBytes < 1<<20 || u.CPUSeconds < 0 {
				t.Errorf("step %d: server %+v", i, u)
			}
			if step.Generator.CPUShare <= 0 || step.Generator.LagMax < step.Generator.LagP99 {
				t.Errorf("step %d: generator %+v", i, step.Generator)
			}
		}
		if !slices.Contains(phases, "load") || !slices.Contains(phases, "making keys") || !slices.Contains(phases, "generating EDEKs") {
			t.Errorf("phases %q", phases)
		}
	}
}

func TestClosedLoop(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	o := small(Clients, s)
	o.Rates, o.Closed, o.Connections, o.Hold = nil, true, 2, 500*time.Millisecond
	res := mustRun(t, o)
	step := &res.Steps[0]
	if counts := clean(t, step); counts["decrypt"] < 10 || step.Asked != 0 || step.Achieved < 20 || !res.Closed {
		t.Errorf("%+v", step)
	}
}

// TestKeysAreLeftOrTakenAway: keys stay, are found again by the next run, and only
// a run that made them deletes them.
func TestKeysAreLeftOrTakenAway(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	keys := func() string {
		t.Helper()
		resp, err := http.Get("http://" + s.target.Addr + "/kms/v1/keys/names?user.name=hdfs")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := make([]byte, 1000)
		n, _ := resp.Body.Read(b)
		return string(b[:n])
	}
	o := small(Clients, s)
	o.Hold = 50 * time.Millisecond
	mustRun(t, o)
	if got := keys(); got != `[ "edekload-1", "edekload-2", "edekload-3" ]` {
		t.Errorf("keys %s", got)
	}
	o.CreateKeys, o.DeleteKeys = 4, true
	mustRun(t, o)
	if got := keys(); got != `[ "edekload-1", "edekload-2", "edekload-3" ]` {
		t.Errorf("keys %s after a run that made the fourth and took it away", got)
	}
}

// TestEDEKFile decrypts what a file holds, with a key whose name needs escapes.
func TestEDEKFile(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	const name = `a/b "c" é%`
	c := newClient(s.target, nil, 20*time.Second, func() {})
	defer c.close()
	session := login.NewSession(login.Simple("hdfs"), s.target.Host, s.target.Addr)
	z := newZone(name)
	if a, err := c.do(t.Context(), session, "POST", []byte("keys"), []byte(`{"name":`+z.quoted+`}`)); err != nil || a.Status != 201 {
		t.Fatal(a, err)
	}
	all, err := generate(t.Context(), c, session, z, 7)
	if err != nil {
		t.Fatal(err)
	}
	o := small(Clients, s)
	o.CreateKeys, o.EDEKs = 0, all
	res := mustRun(t, o)
	if counts := clean(t, &res.Steps[0]); counts["decrypt"] != 100 || res.EDEKs != 7 || res.Keys != 1 {
		t.Errorf("%v %+v", counts, res)
	}
	o = small(Reencrypt, s)
	o.CreateKeys, o.EDEKs = 0, all
	res = mustRun(t, o)
	if counts := clean(t, &res.Steps[0]); counts["reencrypt"] != 100 {
		t.Errorf("%v %+v", counts, res)
	}
}

func TestUnknownKeyStopsThePreparation(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	o := small(Clients, s)
	o.CreateKeys, o.Keys = 0, []string{"nowhere"}
	if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "generate with nowhere: HTTP 500 java.io.IOException") {
		t.Errorf("%v", err)
	}
}

// TestErrorsAreTold: a server that refuses, one that is gone, and one that answers
// something else.
func TestErrorsAreTold(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	o := small(Clients, s)
	o.CreateKeys, o.EDEKs = 0, []edekfile.EDEK{{Key: "k", Version: "k@7", IV: make([]byte, 16), Material: make([]byte, 16)}}
	res := mustRun(t, o)
	got := res.Steps[0].Operation("decrypt")
	if got == nil || got.Failed != 100 || len(got.Errors) != 1 || got.Errors[0].Class != "HTTP 500 java.lang.NullPointerException" ||
		!strings.Contains(got.Errors[0].Sample, "KeyVersion name 'k@7' does not exist") || res.Steps[0].Achieved != 0 || res.Steps[0].Failed() != 1 {
		t.Errorf("%+v", got)
	}

	all, err := target.Parse("http://127.0.0.1:1/kms")
	if err != nil {
		t.Fatal(err)
	}
	o.Targets = all
	res = mustRun(t, o)
	if got := res.Steps[0].Operation("decrypt"); got == nil || got.Errors[0].Class != "connection refused" {
		t.Errorf("%+v", got)
	}
}

// TestInterrupted: what was measured until then is the result.
func TestInterrupted(t *testing.T) {
	s := start(t, "127.0.0.1", nil)
	o := small(Clients, s)
	o.Hold = time.Hour
	ctx, interrupt := context.WithCancel(t.Context())
	o.Progress = func(p Progress) {
		if p.Phase == "load" {
			interrupt()
		}
	}
	res, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if !res.Interrupted || len(res.Steps) != 1 {
		t.Fatalf("%+v", res)
	}
	step := &res.Steps[0]
	if n := clean(t, step)["decrypt"]; n < 1 || step.Seconds < 0.5 || step.Seconds > 600 || step.Achieved <= 0 {
		t.Errorf("%+v", step)
	}
	if !strings.Contains(strings.Join(res.Findings, "\n"), "interrupted") {
		t.Errorf("findings %q", res.Findings)
	}
}
