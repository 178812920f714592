package loadtest

import (
	"fmt"
	"time"

	"github.com/edekd/edekd/loadtest/result"
	"github.com/edekd/edekd/loadtest/schedule"
)

// What makes figures the generator's own.
const (
	ownShare   = 0.9                   // of the processors: beyond, it had no time left
	fullShare  = 0.97                  // of the machine's processors, used by whomever
	lagShare   = 0.25                  // of the latency that is the generator's lateness
	lagWorth   = time.Millisecond      // below, lateness is not worth a word
	busyWorth  = 0.05                  // share of arrivals that found no free connection
	tellingCPU = 50 * time.Millisecond // five ticks of the kernel's clock; less tells nothing
)

// summary makes the result.
func (r *run) summary(interrupted bool) *result.Result {
	o := r.o
	res := &result.Result{
		Version: o.Version, Profile: string(o.Profile), TLS: o.Targets[0].TLS, Identity: o.Kind, Identities: len(o.Identities),
		Closed: o.Closed, Connections: o.Connections, Keys: len(r.zones.all), EDEKs: r.zones.edeks, Started: r.start.UTC(),
		Interrupted: interrupted, Series: r.recorder.Series(),
	}
	for _, t := range o.Targets {
		res.Targets = append(res.Targets, t.String())
	}
	now := r.windows[len(r.windows)-1].End
	if interrupted {
		now = min(now, r.now())
	}
	for i := range r.windows {
		if w := &r.windows[i]; w.Step != schedule.Ramp && w.Begin < now {
			step := r.step(w, min(w.End, now)-w.Begin)
			res.Steps = append(res.Steps, step)
			res.Findings = append(res.Findings, r.findings(&step, w.Step)...)
		}
	}
	if interrupted {
		res.Findings = append(res.Findings, "interrupted: the figures are of what was measured until then")
	}
	if len(o.Meters) > 0 && !r.usage.ok {
		res.Findings = append(res.Findings, "the servers' CPU time is unknown: "+r.usage.source()+" cannot be read")
	}
	return res
}

func (r *run) step(w *schedule.Window, length time.Duration) result.Step {
	s := result.Step{
		Asked: w.To, Achieved: float64(r.recorder.Served(w.Step)) / length.Seconds(), Seconds: length.Seconds(),
		Operations: r.recorder.Operations(w.Step),
	}
	lag, worst, busy := r.recorder.Lags(w.Step)
	s.Generator.LagP99, s.Generator.LagMax, s.BusyArrived = microseconds(lag), microseconds(worst), busy
	r.usage.mu.Lock()
	used := r.usage.steps[w.Step]
	r.usage.mu.Unlock()
	if used != nil {
		s.Generator.CPUShare = used.share()
		s.Generator.MachineBusy = used.last.machine.BusySince(used.first.machine)
		s.Server = r.server(used)
	}
	var p99 float64
	for _, op := range s.Operations {
		p99 = max(p99, op.Latency.P99)
	}
	s.Generator.Limited = s.Generator.CPUShare > ownShare || s.Generator.MachineBusy > fullShare || lag > lagWorth && microseconds(lag) > lagShare*p99
	return s
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// server works out what the servers used in a step, nil when that is unknown.
func (r *run) server(used *stepUsage) *result.Server {
	if !used.first.ok || !used.last.ok {
		return nil
	}
	spent := used.last.servers.CPU - used.first.servers.CPU
	s := &result.Server{
		Source: r.usage.source(), CPUSeconds: spent.Seconds(), Requests: used.last.requests - used.first.requests,
		ResidentBytes: used.last.servers.Resident, IdleBytes: r.usage.before.Resident,
	}
	if spent >= tellingCPU {
		if s.Requests > 0 {
			s.CPUPerRequest = microseconds(spent) / float64(s.Requests)
		}
		if n := used.last.edeks - used.first.edeks; n > 0 {
			s.CPUPerEDEK = microseconds(spent) / float64(n)
		}
	}
	return s
}

// findings says what spoils the figures of a step, or explains them.
func (r *run) findings(s *result.Step, number int) (all []string) {
	say := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if len(r.o.Rates) > 1 {
			text = fmt.Sprintf("step %d (%.6g/s): %s", number+1, s.Asked, text)
		}
		all = append(all, text)
	}
	switch g := &s.Generator; {
	case g.CPUShare > ownShare:
		say("edekload itself is the bottleneck, not the server: it used %.0f %% of its processors. Lower the rate, or give it more of them", 100*g.CPUShare)
	case g.MachineBusy > fullShare:
		say("all processors of edekload's machine were busy, %.0f %% of them with edekload itself: the figures are not the server's alone. Lower the rate, run edekload elsewhere, or end what else runs there", 100*g.CPUShare)
	case g.Limited:
		say("edekload itself was held up, by something else on its machine: it sent late by %v (p99) with %.0f %% of its processors used. The latencies are its own as much as the server's",
			time.Duration(g.LagP99*1000).Round(time.Microsecond), 100*g.CPUShare)
	case s.Asked > 0 && s.Achieved < 0.99*s.Asked:
		say("the server answered %.6g per second of the %.6g asked for", s.Achieved, s.Asked)
	}
	if s.BusyArrived > busyWorth {
		say("%.0f %% of arrivals found all %d connections waiting for answers: the server is too slow for this rate, or there are too few --connections", 100*s.BusyArrived, r.o.Connections)
	}
	return all
}
