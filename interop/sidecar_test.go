package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// behindSite lets edekd act for everybody at a Java KMS.
var behindSite = []string{"hadoop.kms.proxyuser.edekd.users", "*", "hadoop.kms.proxyuser.edekd.hosts", "*"}

// ask sends a request as user hdfs and returns status and body.
func ask(t *testing.T, method, addr, target, body string) (int, string) {
	t.Helper()
	status, text, err := request(method, addr, target, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, text
}

// request is ask where no test may end.
func request(method, addr, target, body string) (int, string, error) {
	request, err := http.NewRequest(method, "http://"+addr+"/kms/v1"+target, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	query := request.URL.Query()
	query.Set("user.name", "hdfs")
	request.URL.RawQuery = query.Encode()
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return response.StatusCode, string(text), err
}

type encrypted struct {
	VersionName, IV string
	Inner           struct{ Material string } `json:"encryptedKeyVersion"`
}

// generate asks for one EDEK.
func generate(t *testing.T, addr, key string) encrypted {
	t.Helper()
	status, text := ask(t, "GET", addr, "/key/"+key+"/_eek?eek_op=generate&num_keys=1", "")
	var list []encrypted
	if err := json.Unmarshal([]byte(text), &list); status != 200 || err != nil || len(list) != 1 {
		t.Fatalf("generate: %d %s", status, text)
	}
	return list[0]
}

// decrypt opens an EDEK and returns the answer.
func decrypt(t *testing.T, addr, key string, e encrypted) string {
	t.Helper()
	status, text := ask(t, "POST", addr, "/keyversion/"+e.VersionName+"/_eek?eek_op=decrypt",
		fmt.Sprintf(`{"name":%q,"iv":%q,"material":%q}`, key, e.IV, e.Inner.Material))
	if status != 200 {
		t.Fatalf("decrypt: %d %s", status, text)
	}
	return text
}

// metric returns a value that edekd shows, 0 for none.
func metric(t *testing.T, addr, name string) float64 {
	t.Helper()
	response, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return metricIn(t, string(text), name)
}

// metricIn returns a value of what /metrics answers, 0 for none.
func metricIn(t *testing.T, text, name string) float64 {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return number
		}
	}
	return 0
}

// ready tells whether EDEKs were fetched ahead.
func ready(t *testing.T, addr string) bool {
	t.Helper()
	return metric(t, addr, "edekd_ring_depth") >= 10
}

// edekd before a Java KMS of two nodes: Java clients live with it as with the
// Java KMS, what happens behind it is followed, and a node that goes is not
// missed.
func TestSidecarBeforeAJavaKMS(t *testing.T) {
	newest := HadoopVersions[len(HadoopVersions)-1]
	java := StartJavaKMS(t, newest, JavaKMSOptions{Site: behindSite})
	port, nodes := StartShims(t, java.Addr, "127.0.0.1", "127.0.0.2")
	edekd := StartEdekd(t, "hadoop.kms.key.provider.uri", "kms://http@127.0.0.1;127.0.0.2:"+port+"/kms",
		"edekd.upstream.user", "edekd", "edekd.upstream.poll.seconds", "1", "edekd.upstream.attempt.ms", "3000")
	t.Run("life cycle", func(t *testing.T) {
		// Names of which Java makes something else in a path are not sent there.
		program := Java(t, newest, checksPackage+"LifeCycle", edekd.ProviderURI(), "false", "balancing", "/lead/trail/", "..")
		RunChecks(t, program, nil, slices.DeleteFunc(slices.Clone(lifeCycleChecks), func(check string) bool {
			return check == "name /lead/trail/" || check == "name .."
		})...)
	})

	if status, text := ask(t, "POST", edekd.Addr, "/keys", `{"name":"zone"}`); status != 201 {
		t.Fatalf("create: %d %s", status, text)
	}
	old := generate(t, edekd.Addr, "zone")
	if ours, theirs := decrypt(t, edekd.Addr, "zone", old), decrypt(t, java.Addr, "zone", old); ours != theirs {
		t.Errorf("decrypted by edekd: %s\nby Java: %s", ours, theirs)
	}
	// Rolled directly: Java goes on giving EDEKs of the old version from its own
	// queue until somebody tells it not to.
	if status, text := ask(t, "POST", java.Addr, "/key/zone", "{}"); status != 200 {
		t.Fatalf("roll: %d %s", status, text)
	}
	for end := time.Now().Add(time.Minute); generate(t, edekd.Addr, "zone").VersionName != "zone@1"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a roll behind edekd is not followed")
		}
	}
	for range 200 {
		if v := generate(t, edekd.Addr, "zone").VersionName; v != "zone@1" {
			t.Fatalf("%s after zone@1", v)
		}
	}

	fresh := generate(t, edekd.Addr, "zone")
	nodes[0].Set(t, ShimRefuse)
	for range 50 {
		generate(t, edekd.Addr, "zone")
		decrypt(t, edekd.Addr, "zone", fresh)
		decrypt(t, edekd.Addr, "zone", old)
	}
	for end := time.Now().Add(time.Minute); !ready(t, edekd.Addr); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is fetched ahead from the node that is left")
		}
	}
	nodes[1].Set(t, ShimRefuse)
	asked := time.Now()
	for status := 200; status == 200; {
		status, _ = ask(t, "POST", edekd.Addr, "/keyversion/zone@1/_eek?eek_op=decrypt",
			fmt.Sprintf(`{"name":"zone","iv":%q,"material":%q}`, fresh.IV, fresh.Inner.Material))
		if time.Since(asked) > time.Minute {
			t.Fatal("a KMS without nodes goes on answering")
		}
	}
	generate(t, edekd.Addr, "zone") // from the ring
	nodes[0].Set(t, ShimForward)
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if status, _ := ask(t, "GET", edekd.Addr, "/key/zone/_metadata", ""); status == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a node that is back is not used")
		}
	}
}
