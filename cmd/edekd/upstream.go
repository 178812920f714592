package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/edekd/edekd/cache"
	"github.com/edekd/edekd/cache/ring"
	"github.com/edekd/edekd/hadoop/tlsstore"
	"github.com/edekd/edekd/internal/config"
	"github.com/edekd/edekd/keys"
	"github.com/edekd/edekd/proxy/audit"
	"github.com/edekd/edekd/upstream"
	"github.com/edekd/edekd/upstream/kms"
)

// upstreamConfig says how the KMS of a provider kms:// is reached.
func upstreamConfig(c *config.Config, log *slog.Logger) (kms.Config, error) {
	u := &c.Upstream
	k := kms.Config{Service: u.User, Attempt: u.Attempt, Total: u.Total, InFlight: u.InFlight, Log: log}
	if u.Kerberos {
		k.Kerberos = &kms.Kerberos{Principal: u.Principal, Keytab: u.Keytab}
	}
	if c.ClientSSL != nil {
		trust, _, err := tlsstore.LoadClient(c.ClientSSL)
		if err != nil {
			return k, tlsProblem(err)
		}
		k.TLS = trust
	}
	return k, nil
}

// farConfig says how keys behind another KMS are served.
func farConfig(c *config.Config, log *slog.Logger, auditLog *audit.Log) cache.FarConfig {
	u, q := &c.Upstream, &c.Queue
	cover := u.RingCover
	if cover == 0 {
		cover = -1 // to the rings, 0 is the default
	}
	remembered := int64(0)
	if u.CacheDecrypts || u.LocalDecrypts {
		remembered = u.DecryptBytes
	}
	return cache.FarConfig{Poll: u.Poll, Timeout: u.Total, Log: log,
		Grant: u.Grant, GrantOutage: u.GrantOutage, LocalAuthorization: u.LocalAuthorization,
		HotFile:  filepath.Join(c.StateDir, "hot-keys"),
		DEKBytes: remembered, DEKAge: u.DecryptAge, Copies: u.LocalDecrypts,
		Ring: ring.Config{Size: q.Size, LowWatermark: q.LowWatermark, Expiry: q.Expiry,
			Cover: cover, Budget: u.RingBytes, Reserve: u.RingReserve},
		Reserved:     u.Reserved,
		StateChanged: func(is, was upstream.State) { auditLog.State(is.String(), was.String()) }}
}

// greetTime is how long the start waits for the KMSes behind edekd: one that is away
// keeps nobody from starting.
const greetTime = 5 * time.Second

// greet finds out which servers of the KMSes behind edekd let it in, so that edekd
// does not say that it is ready when it is not.
func greet(ctx context.Context, p keys.Provider) {
	ctx, cancel := context.WithTimeout(ctx, greetTime)
	defer cancel()
	ones, _ := keys.FarOnes(p)
	var all sync.WaitGroup
	for _, far := range ones {
		if k, ok := far.(*keys.KMS); ok {
			all.Go(func() { k.Greet(ctx) })
		}
	}
	all.Wait()
}

// countKeys counts the keys, and says how many they are. Those behind another
// KMS are not counted: it need not be there.
func countKeys(ctx context.Context, p keys.Provider) (count int, text string, err error) {
	if far, _ := keys.FarOnes(p); len(far) > 0 {
		return -1, "not counted", nil
	}
	names, err := p.Names(ctx)
	return len(names), strconv.Itoa(len(names)), err
}

// nodeRemarks tell how many servers of each KMS behind edekd are out of use. They do
// not tell which: whoever reaches the port may read them.
func nodeRemarks(p keys.Provider) (lines []string) {
	ones, _ := keys.FarOnes(p)
	for _, far := range ones {
		k, ok := far.(*keys.KMS)
		if !ok {
			continue
		}
		nodes := k.Nodes()
		all := len(nodes)
		out := slices.DeleteFunc(nodes, func(n upstream.Status) bool { return n.Usable })
		if len(out) > 0 {
			lines = append(lines, fmt.Sprintf("%d of %d servers of a KMS behind edekd out of use: the log says which and why", len(out), all))
		}
	}
	return lines
}

// registerNodes shows how each KMS behind edekd and each of its nodes is. Of two
// providers at one address, the first is shown.
func registerNodes(set *metrics.Set, p keys.Provider) {
	ones, _ := keys.FarOnes(p)
	for _, far := range ones {
		k, ok := far.(*keys.KMS)
		if !ok {
			continue
		}
		label := "{kms=" + strconv.Quote(k.String()) + "}"
		set.GetOrCreateGauge("edekd_upstream_waiting"+label, func() float64 { return float64(k.Queue().Waiting) })
		set.GetOrCreateGauge("edekd_upstream_refused_total"+label, func() float64 { return float64(k.Queue().Refused) })
		for i, node := range k.Nodes() {
			label := "{node=" + strconv.Quote(node.Name) + "}"
			now := func() upstream.Status { return k.Nodes()[i] }
			set.GetOrCreateGauge("edekd_upstream_node_usable"+label, func() float64 {
				if now().Usable {
					return 1
				}
				return 0
			})
			set.GetOrCreateGauge("edekd_upstream_node_seconds"+label, func() float64 { return now().Latency.Seconds() })
			set.GetOrCreateGauge("edekd_upstream_node_in_flight"+label, func() float64 { return float64(now().InFlight) })
			set.GetOrCreateGauge("edekd_upstream_node_requests_total"+label, func() float64 { return float64(now().Requests) })
			set.GetOrCreateGauge("edekd_upstream_node_faults_total"+label, func() float64 { return float64(now().Faults) })
			set.GetOrCreateGauge("edekd_upstream_node_opened_total"+label, func() float64 { return float64(now().Opened) })
		}
	}
}
