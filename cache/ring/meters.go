package ring

import (
	"github.com/VictoriaMetrics/metrics"
)

// meters are what is counted of all rings together.
type meters struct {
	asked, missed, fetches, failed, fetched, dropped, shed *metrics.Counter
	latency                                                *metrics.PrometheusHistogram
}

func newMeters(rs *Rings) meters {
	s := rs.Metrics
	s.NewGauge("edekd_ring_bytes", func() float64 { return float64(rs.bytes.Load()) })
	s.NewGauge("edekd_ring_budget_bytes", func() float64 { return float64(rs.Budget) })
	s.NewGauge("edekd_ring_keys", func() float64 { return float64(rs.table.count.Load()) })
	s.NewGauge("edekd_ring_depth", func() float64 {
		var depth int64
		rs.table.all(func(r *ring) { depth += r.depth() })
		return float64(depth)
	})
	s.NewGauge("edekd_ring_drain", func() (drain float64) {
		rs.table.all(func(r *ring) { drain += r.drain() })
		return drain
	})
	return meters{
		asked:   s.NewCounter("edekd_ring_asked_total"),
		missed:  s.NewCounter("edekd_ring_misses_total"),
		fetches: s.NewCounter("edekd_ring_fetches_total"),
		failed:  s.NewCounter("edekd_ring_fetches_failed_total"),
		fetched: s.NewCounter("edekd_ring_fetched_total"),
		dropped: s.NewCounter("edekd_ring_dropped_total"),
		shed:    s.NewCounter("edekd_ring_shed_total"),
		latency: s.NewPrometheusHistogramExt("edekd_ring_fetch_seconds", metrics.ExponentialBuckets(1e-3, 2, 16)),
	}
}
