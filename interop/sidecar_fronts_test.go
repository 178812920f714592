package interop

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Two Java KMSes before a third that holds the keys, and edekd before the two.
func TestSidecarBeforeTwoFronts(t *testing.T) {
	const hadoop = "3.4.3"
	holder := StartJavaKMS(t, hadoop, JavaKMSOptions{Site: behindSite})
	var fronts []*JavaKMS
	for range 2 {
		fronts = append(fronts, StartJavaKMS(t, hadoop, JavaKMSOptions{Site: behindSite, Provider: "kms://http@" + holder.Addr + "/kms"}))
	}
	edekd := StartEdekd(t, "hadoop.kms.key.provider.uri", "kms://http@"+fronts[0].Addr+";"+fronts[1].Addr+"/kms",
		"edekd.upstream.user", "edekd", "edekd.upstream.poll.seconds", "1")

	t.Run("zone", func(t *testing.T) {
		runZone(t, hadoop, edekd, func() {
			if status, text := ask(t, "POST", holder.Addr, "/key/zonekey", "{}"); status != 200 {
				t.Fatalf("roll: %d %s", status, text)
			}
			soon(t, "an EDEK of the new version", func() bool { return generate(t, edekd.Addr, "zonekey").VersionName == "zonekey@1" })
		})
	})
	t.Run("nodes that go", func(t *testing.T) { losesNodes(t, edekd.Addr, fronts) })
	// The front that is left takes logins, and has an exception for every question.
	t.Run("what they stand on goes", func(t *testing.T) {
		soon(t, "EDEKs that are ready", func() bool { return ready(t, edekd.Addr) })
		holder.Signal(t, syscall.SIGKILL)
		soon(t, "a state that says so", func() bool { return metric(t, edekd.Addr, `edekd_upstream_state{state="cache-only"}`) == 1 })
		if e := generate(t, edekd.Addr, "zonekey"); e.VersionName != "zonekey@1" {
			t.Errorf("an EDEK of %s", e.VersionName)
		}
	})
}

// losesNodes stops and kills Java KMSes behind edekd while clients read, none of
// whom may notice.
func losesNodes(t *testing.T, addr string, fronts []*JavaKMS) {
	stop := make(chan struct{})
	var reads atomic.Int64
	var readers sync.WaitGroup
	defer readers.Wait()
	defer close(stop)
	read := func(method, target, body, want string) {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if status, text, err := request(method, addr, target, body); err != nil || status != 200 || !strings.Contains(text, want) {
					t.Errorf("%s %s: %d %s, %v", method, target, status, text, err)
					return
				}
				reads.Add(1)
			}
		})
	}
	for range 6 { // of an EDEK each, since calls for one are shared
		e := generate(t, addr, "zonekey")
		read("POST", "/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt",
			fmt.Sprintf(`{"name":"zonekey","iv":%q,"material":%q}`, e.IV, e.Inner.Material), decrypt(t, addr, "zonekey", e))
	}
	read("GET", "/key/zonekey/_eek?eek_op=generate&num_keys=1", "", `"versionName" : "zonekey@1"`)
	read("GET", "/key/zonekey/_metadata", "", `"versions" : 2`)
	goOn := func() {
		t.Helper()
		from := reads.Load()
		soon(t, "a hundred reads", func() bool { return t.Failed() || reads.Load() > from+100 })
	}
	node := func(what string, k *JavaKMS) float64 {
		t.Helper()
		return metric(t, addr, "edekd_upstream_node_"+what+`{node="`+k.Addr+`"}`)
	}
	goOn()
	before := node("faults_total", fronts[0])
	fronts[0].Signal(t, syscall.SIGSTOP)
	soon(t, "a node that hangs", func() bool { return node("faults_total", fronts[0]) > before })
	goOn()
	fronts[0].Signal(t, syscall.SIGCONT)
	soon(t, "a node that goes on", func() bool { return node("usable", fronts[0]) == 1 })
	goOn()
	fronts[1].Signal(t, syscall.SIGKILL)
	soon(t, "the end of a node", func() bool { return node("usable", fronts[1]) == 0 })
	goOn()
}
