package proxyusers

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxNames       = 10_000          // host names of all users together
	lookupTime     = 5 * time.Second // of one look-up of all names
	lookupInterval = time.Minute     // between look-ups while questions come
	lookupParallel = 16              // names looked up at the same time
)

// lookup finds the addresses of a host name, as net.Resolver.LookupNetIP does.
type lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)

// hosts knows the addresses of host names.
type hosts struct {
	names  []string
	lookup lookup

	made    time.Time
	renewed atomic.Int64 // when a look-up of all names began last, ns since made, however the clock is set
	mu      sync.RWMutex // guards known, and what refresh collects
	known   map[string][]netip.Addr
}

func newHosts(names []string, lookup lookup) *hosts {
	return &hosts{names: names, lookup: lookup, made: time.Now(), known: map[string][]netip.Addr{}}
}

// inherit takes over what other knows.
func (h *hosts) inherit(other *hosts) {
	other.mu.RLock()
	defer other.mu.RUnlock()
	for _, name := range h.names {
		h.known[name] = other.known[name]
	}
}

// have tells whether one of the names has the address. It does not wait.
func (h *hosts) have(names []string, addr netip.Addr) bool {
	now, last := int64(time.Since(h.made)), h.renewed.Load()
	if now-last >= int64(lookupInterval) && h.renewed.CompareAndSwap(last, now) {
		go h.refresh()
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(h.known[name], addr) })
}

// refresh looks all names up and returns those that are not found, and why. Each
// counts as soon as it is found.
func (h *hosts) refresh() map[string]error {
	h.renewed.Store(int64(time.Since(h.made)))
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	failed := map[string]error{}
	var wg sync.WaitGroup
	slots := make(chan struct{}, lookupParallel)
	for _, name := range h.names {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			addrs, err := h.lookup(ctx, "ip", name)
			for i := range addrs {
				addrs[i] = normal(addrs[i])
			}
			h.mu.Lock()
			defer h.mu.Unlock()
			if dns := (*net.DNSError)(nil); err == nil || errors.As(err, &dns) && dns.IsNotFound {
				h.known[name] = addrs
			}
			if err != nil {
				failed[name] = err
			}
		})
	}
	wg.Wait()
	return failed
}
