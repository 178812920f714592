package jmx

import (
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"
)

const mib = 1 << 20

// figures are what Go's runtime tells of itself, in Java's terms.
type figures struct {
	heapUsed, heapCommitted   uint64 // bytes
	otherUsed, otherCommitted uint64 // stacks and the runtime's own, bytes
	heapMax                   int64  // soft memory limit in bytes, -1 when there is none
	gcs                       uint64
	gcPause                   time.Duration // with all goroutines stopped, since the start
	running, waiting          uint64        // goroutines
	made                      uint64        // goroutines since the start
}

func readFigures() figures {
	names := [...]string{
		"/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/unused:bytes",
		"/memory/classes/heap/free:bytes",
		"/memory/classes/heap/released:bytes",
		"/memory/classes/total:bytes",
		"/gc/cycles/total:gc-cycles",
		"/cpu/classes/gc/pause:cpu-seconds",
		"/sched/goroutines:goroutines",
		"/sched/goroutines/waiting:goroutines",
		"/sched/goroutines-created:goroutines",
	}
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	u := func(i int) uint64 { return samples[i].Value.Uint64() }

	f := figures{heapUsed: u(0), heapMax: -1, gcs: u(5), waiting: u(8), made: u(9)}
	f.heapCommitted = u(0) + u(1) + u(2)
	f.otherCommitted = u(4) - u(3) - f.heapCommitted
	f.otherUsed = f.otherCommitted
	f.running = u(7) - min(u(7), u(8))
	// The runtime counts a pause once for each of its processors.
	perCPU := samples[6].Value.Float64() / float64(runtime.GOMAXPROCS(0))
	f.gcPause = time.Duration(perCPU * float64(time.Second))
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		f.heapMax = limit
	}
	return f
}

// inMiB is bytes in the unit of JvmMetrics, where "unknown" is -1.
func inMiB[T uint64 | int64](bytes T) float32 {
	if int64(bytes) < 0 {
		return -1
	}
	return float32(float64(bytes) / mib)
}

func (r *Registry) addProcessBeans() {
	r.Add("Hadoop:service="+r.process+",name=JvmMetrics", "JvmMetrics", func() []Attr {
		f := readFigures()
		return []Attr{
			{"tag.Context", "jvm"},
			{"tag.ProcessName", r.process},
			{"tag.SessionId", nil},
			{"tag.Hostname", r.host},
			{"MemNonHeapUsedM", inMiB(f.otherUsed)},
			{"MemNonHeapCommittedM", inMiB(f.otherCommitted)},
			{"MemNonHeapMaxM", float32(-1)},
			{"MemHeapUsedM", inMiB(f.heapUsed)},
			{"MemHeapCommittedM", inMiB(f.heapCommitted)},
			{"MemHeapMaxM", inMiB(f.heapMax)},
			{"MemMaxM", inMiB(f.heapMax)},
			{"GcCount", f.gcs},
			{"GcTimeMillis", f.gcPause.Milliseconds()},
			{"ThreadsNew", 0},
			{"ThreadsRunnable", f.running},
			{"ThreadsBlocked", 0},
			{"ThreadsWaiting", f.waiting},
			{"ThreadsTimedWaiting", 0},
			{"ThreadsTerminated", 0},
		}
	})
	r.Add("java.lang:type=Memory", "sun.management.MemoryImpl", func() []Attr {
		f := readFigures()
		return []Attr{
			{"HeapMemoryUsage", []Attr{
				{"committed", f.heapCommitted}, {"init", 0}, {"max", f.heapMax}, {"used", f.heapUsed}}},
			{"NonHeapMemoryUsage", []Attr{
				{"committed", f.otherCommitted}, {"init", 0}, {"max", -1}, {"used", f.otherUsed}}},
			{"Verbose", false},
			{"ObjectName", "java.lang:type=Memory"},
		}
	})
	r.Add("java.lang:type=Runtime", "sun.management.RuntimeImpl", func() []Attr {
		return []Attr{
			{"Name", strconv.Itoa(os.Getpid()) + "@" + r.host},
			{"StartTime", r.started.UnixMilli()},
			{"VmName", "Go"},
			{"VmVendor", "The Go Authors"},
			{"VmVersion", runtime.Version()},
			{"Uptime", time.Since(r.started).Milliseconds()},
			{"Pid", os.Getpid()},
			{"ObjectName", "java.lang:type=Runtime"},
		}
	})
	r.Add("java.lang:type=Threading", "com.sun.management.internal.HotSpotThreadImpl", func() []Attr {
		f := readFigures()
		return []Attr{
			{"ThreadCount", f.running + f.waiting},
			{"TotalStartedThreadCount", f.made},
			{"ObjectName", "java.lang:type=Threading"},
		}
	})
}
