// Package cpu reads how much processor time and memory a server's process has
// used: from /proc when it runs on this machine, from its Prometheus page
// otherwise.
package cpu

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Sample is what a process has used so far.
type Sample struct {
	CPU      time.Duration // user and system
	Resident int64         // bytes; 0: not told
}

// Meter reads samples of one process.
type Meter interface {
	Read(ctx context.Context) (Sample, error)
	String() string // where the figures are from
}

// Process reads /proc/PID.
type Process int

// ticks per second of CPU time in /proc: USER_HZ, 100 on every Linux that Go
// supports.
const ticks = 100

// String names the source.
func (p Process) String() string { return fmt.Sprintf("/proc/%d", int(p)) }

// Read implements Meter.
func (p Process) Read(context.Context) (Sample, error) {
	text, err := os.ReadFile(p.String() + "/stat")
	if err != nil {
		return Sample{}, err
	}
	s, err := parseStat(text)
	if err != nil {
		return Sample{}, fmt.Errorf("%s/stat: %w", p, err)
	}
	return s, nil
}

// parseStat reads fields 14, 15 and 24 of proc_pid_stat(5). The second field is the
// program's name in brackets, which may hold anything.
func parseStat(text []byte) (Sample, error) {
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 22 {
		return Sample{}, errors.New("fewer fields than expected")
	}
	var n [3]int64
	for i, field := range []int{14, 15, 24} {
		var err error
		if n[i], err = strconv.ParseInt(fields[field-3], 10, 64); err != nil {
			return Sample{}, err
		}
	}
	return Sample{CPU: time.Duration(n[0]+n[1]) * time.Second / ticks, Resident: n[2] * int64(os.Getpagesize())}, nil
}

// Metrics reads a Prometheus page.
type Metrics struct {
	url    string
	client *http.Client
}

// NewMetrics makes a meter of a page.
func NewMetrics(url string, config *tls.Config) *Metrics {
	return &Metrics{url: url, client: &http.Client{
		Timeout:       5 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// String names the source.
func (m *Metrics) String() string { return m.url }

// Read implements Meter.
func (m *Metrics) Read(ctx context.Context) (Sample, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url, nil)
	if err != nil {
		return Sample{}, err
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return Sample{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Sample{}, fmt.Errorf("%s: %s", m.url, resp.Status)
	}
	const largest = 4 << 20
	text, err := io.ReadAll(io.LimitReader(resp.Body, largest))
	if err != nil {
		return Sample{}, err
	}
	s, err := parseMetrics(text)
	if err != nil {
		return Sample{}, fmt.Errorf("%s: %w", m.url, err)
	}
	return s, nil
}

// parseMetrics finds the two metrics that Prometheus' clients in all languages
// have for their process.
func parseMetrics(text []byte) (Sample, error) {
	var s Sample
	found := false
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		if name != "process_cpu_seconds_total" && name != "process_resident_memory_bytes" {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || !(n >= 0) || n > 1e15 {
			return Sample{}, fmt.Errorf("%s is %q", name, value)
		}
		if name == "process_cpu_seconds_total" {
			s.CPU, found = time.Duration(min(n, 9e9)*float64(time.Second)), true
		} else {
			s.Resident = int64(n)
		}
	}
	if !found {
		return Sample{}, errors.New("there is no process_cpu_seconds_total")
	}
	return s, nil
}
