package jmx

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// tick is the interval at which Dropwizard's meters move their averages.
const tick = 5 * time.Second

// Meter counts events and knows their rate, as Dropwizard's Meter does: since
// the start, and averaged with exponential decay over one, five and fifteen
// minutes. The averages move when they are read, not by a timer; the events
// since the last reading then count as evenly spread.
type Meter struct {
	count atomic.Uint64
	_     [56]byte // meters of one request are marked by all cores at once

	started time.Time

	mu       sync.Mutex
	ticked   time.Time // the tick up to which the averages count
	averaged float64   // events they count
	warm     bool      // they count at least one tick
	rates    [len(minutes)]float64
}

var minutes = [...]float64{1, 5, 15}

func newMeter(now time.Time) *Meter {
	return &Meter{started: now, ticked: now}
}

// Mark counts one event.
func (m *Meter) Mark() { m.count.Add(1) }

// Count is the number of events so far.
func (m *Meter) Count() uint64 { return m.count.Load() }

// attrs are the bean's attributes in the order in which Java shows them.
func (m *Meter) attrs() []Attr {
	now := time.Now()
	count := m.count.Load()
	rates := m.average(now, float64(count))
	mean := 0.0
	if elapsed := now.Sub(m.started).Seconds(); count > 0 && elapsed > 0 {
		mean = float64(count) / elapsed
	}
	return []Attr{
		{"Count", count},
		{"FifteenMinuteRate", rates[2]},
		{"FiveMinuteRate", rates[1]},
		{"MeanRate", mean},
		{"OneMinuteRate", rates[0]},
		{"RateUnit", "events/second"},
	}
}

// average moves the averages over the ticks that have passed.
func (m *Meter) average(now time.Time, count float64) [len(minutes)]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	age := now.Sub(m.ticked)
	ticks := age / tick
	if ticks <= 0 {
		return m.rates
	}
	span := ticks * tick
	// A reading that was overtaken by another may bring an older count.
	rate := max(0, count-m.averaged) / age.Seconds()
	m.averaged += rate * span.Seconds()
	m.ticked = m.ticked.Add(span)
	for i, over := range minutes {
		if !m.warm {
			m.rates[i] = rate
			continue
		}
		keep := math.Exp(-span.Minutes() / over)
		m.rates[i] = rate + keep*(m.rates[i]-rate)
	}
	m.warm = true
	return m.rates
}
