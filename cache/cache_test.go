package cache

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/goleak"

	"github.com/edekd/edekd/edek"
	"github.com/edekd/edekd/internal/race"
	"github.com/edekd/edekd/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a provider in memory that counts its questions and can hold an
// answer back after it has looked.
type store struct {
	mu       sync.Mutex
	versions map[string][][]byte
	aclNames map[string]string
	asked    atomic.Int64
	looked   chan struct{} // when set, receives once an answer is in hand …
	release  chan struct{} // … and waits here before giving it
	fail     error
}

func newStore() *store { return &store{versions: map[string][][]byte{}, aclNames: map[string]string{}} }

func (s *store) hold() (looked <-chan struct{}, release chan<- struct{}) {
	l, r := make(chan struct{}), make(chan struct{})
	s.mu.Lock()
	s.looked, s.release = l, r
	s.mu.Unlock()
	return l, r
}

func (s *store) answer() {
	s.asked.Add(1)
	s.mu.Lock()
	looked, release := s.looked, s.release
	s.looked, s.release = nil, nil
	s.mu.Unlock()
	if looked != nil {
		close(looked)
		<-release
	}
}

// walked is a store that shows its keys.
type walked struct{ *store }

func (w walked) Walk(ctx context.Context, visit func(*edek.Metadata, *edek.KeyVersion) bool) error {
	for _, name := range slices.Sorted(maps.Keys(w.versions)) {
		m, err := w.Metadata(ctx, name)
		if err != nil {
			return err
		}
		v, err := w.Version(ctx, m.CurrentVersion())
		if err != nil || !visit(m, v) {
			return err
		}
	}
	return nil
}

func TestWarm(t *testing.T) {
	s := newStore()
	for _, name := range []string{"a", "b", "c"} {
		s.versions[name] = [][]byte{make([]byte, 16), make([]byte, 32)}
	}
	k, err := New(walked{s}, Config{Enabled: true, Idle: time.Hour, CurrentAge: time.Hour, Suite: edek.AESCTR, Metrics: metrics.NewSet()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if n, err := k.Warm(t.Context()); n != 3 || err != nil {
		t.Fatalf("%d keys, %v", n, err)
	}
	asked := s.asked.Load()
	for _, name := range []string{"a", "b", "c"} {
		m, _, err := k.Metadata(t.Context(), name)
		if err != nil || m.Versions != 2 {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		for _, look := range []func() (*edek.ZoneKey, error){
			func() (*edek.ZoneKey, error) { return k.Current(t.Context(), name) },
			func() (*edek.ZoneKey, error) {
				z, err := k.VersionRuled(t.Context(), name+"@1")
				return z.ZoneKey, err
			},
		} {
			if z, err := look(); err != nil || z.VersionName() != name+"@1" || z.DEKSize() != 32 {
				t.Errorf("%s: %v, %v", name, z, err)
			}
		}
	}
	if now := s.asked.Load(); now != asked {
		t.Errorf("the provider was asked %d times", now-asked)
	}
	if z, err := k.VersionRuled(t.Context(), "a@0"); err != nil || z.DEKSize() != 16 {
		t.Errorf("%v, %v", z, err)
	}
	// What is taken in is no more believed than what is asked for.
	if _, err := k.Roll(t.Context(), edek.Caller{}, "a", nil); err != nil {
		t.Fatal(err)
	}
	if z, err := k.Current(t.Context(), "a"); err != nil || z.VersionName() != "a@2" {
		t.Errorf("%v, %v", z, err)
	}
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := k.Warm(cut); n != 1 || err != nil {
		t.Errorf("without time: %d keys, %v", n, err)
	}
}

func missing(name string) error {
	return &edek.Error{Kind: edek.NotFound, Op: "look up", Key: name, Text: name + " is not there"}
}

func (s *store) Names(context.Context) ([]string, error) {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.versions))
	s.mu.Unlock()
	s.answer()
	return names, nil
}

func (s *store) Versions(_ context.Context, name string) ([]*edek.KeyVersion, error) {
	s.asked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.versions[name]) == 0 {
		return nil, missing(name)
	}
	var all []*edek.KeyVersion
	for n, material := range s.versions[name] {
		all = append(all, &edek.KeyVersion{Name: name, VersionName: edek.VersionName(name, n), Material: bytes.Clone(material)})
	}
	return all, nil
}

func (s *store) Metadata(_ context.Context, name string) (*edek.Metadata, error) {
	s.mu.Lock()
	n, fail := len(s.versions[name]), s.fail
	attributes := map[string]string{edek.AttributeACLName: cmp.Or(s.aclNames[name], name)}
	s.mu.Unlock()
	s.answer()
	if fail != nil {
		return nil, fail
	}
	if n == 0 {
		return nil, missing(name)
	}
	return &edek.Metadata{Name: name, Versions: n, Attributes: attributes}, nil
}

func (s *store) Version(_ context.Context, versionName string) (*edek.KeyVersion, error) {
	name, n, ok := edek.SplitVersion(versionName)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked.Add(1)
	if s.fail != nil {
		return nil, s.fail
	}
	if !ok || n >= len(s.versions[name]) {
		return nil, missing(versionName)
	}
	return &edek.KeyVersion{Name: name, VersionName: versionName, Material: bytes.Clone(s.versions[name][n])}, nil
}

func (s *store) Create(_ context.Context, k *edek.NewKey) (*edek.KeyVersion, error) {
	s.mu.Lock()
	s.aclNames[k.Name] = k.Attributes[edek.AttributeACLName]
	s.mu.Unlock()
	return s.Roll(context.Background(), k.Name, nil)
}

func (s *store) Roll(_ context.Context, name string, _ []byte) (*edek.KeyVersion, error) {
	material := make([]byte, 16)
	rand.Read(material)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.versions[name] = append(s.versions[name], material)
	return &edek.KeyVersion{Name: name, VersionName: edek.VersionName(name, len(s.versions[name])-1), Material: bytes.Clone(material)}, nil
}

func (s *store) Delete(_ context.Context, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.versions, name)
	return nil
}

func (s *store) String() string { return "memory:" }
func (s *store) Close() error   { return nil }

func newCache(t testing.TB, s keys.Provider, c Config) *Cache {
	t.Helper()
	c.Metrics, c.Suite = metrics.NewSet(), edek.AESCTR
	k, err := New(s, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

var hadoopDefaults = Config{Enabled: true, Idle: 10 * time.Minute, CurrentAge: 30 * time.Second}

// settle waits until ristretto has taken in what was set.
func (k *Cache) settle() {
	for _, t := range []*table[Ruled]{k.current, k.versions} {
		t.known.Wait()
		t.unknown.Wait()
	}
	k.all.known.Wait()
	k.metadata.known.Wait()
	k.metadata.unknown.Wait()
}

func TestWarmAnswersAskNobodyAndAllocateNothing(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	s.Create(ctx, &edek.NewKey{Name: "k"})
	look := func() {
		if _, _, err := k.Metadata(ctx, "k"); err != nil {
			t.Fatal(err)
		}
		if z, err := k.Current(ctx, "k"); err != nil || z.VersionName() != "k@0" {
			t.Fatal(z, err)
		}
		if _, err := k.VersionRuled(ctx, "k@0"); err != nil {
			t.Fatal(err)
		}
	}
	look() // an answer is warm at once, whatever the cache beneath still has to do
	asked := s.asked.Load()
	if n := testing.AllocsPerRun(1000, look); n != 0 && !race.Enabled {
		t.Errorf("%v allocations", n)
	}
	if now := s.asked.Load(); now != asked {
		t.Errorf("asked the provider %d times when warm", now-asked)
	}
}

func TestDisabledCacheAsksEachTime(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, Config{})
	s.Create(ctx, &edek.NewKey{Name: "k"})
	for range 3 {
		k.Metadata(ctx, "k")
	}
	if n := s.asked.Load(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
}

// A load that looked before a roll and answers after it must neither be
// remembered nor be given to anyone who came after the roll.
func TestLateAnswerDoesNotOutliveRoll(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	s.Create(ctx, &edek.NewKey{Name: "k"})
	looked, release := s.hold()
	early := make(chan string, 1)
	go func() {
		z, err := k.Current(ctx, "k")
		if err != nil {
			early <- err.Error()
			return
		}
		early <- z.VersionName()
	}()
	<-looked
	if _, err := k.Roll(ctx, edek.Caller{}, "k", nil); err != nil {
		t.Fatal(err)
	}
	late := make(chan string, 1)
	go func() {
		z, err := k.Current(ctx, "k") // joins the flight of the early one
		if err != nil {
			late <- err.Error()
			return
		}
		late <- z.VersionName()
	}()
	close(release)
	if v := <-early; v != "k@0" && v != "k@1" {
		t.Errorf("the early caller got %s", v)
	}
	if v := <-late; v != "k@1" {
		t.Errorf("a caller that came after the roll got %s", v)
	}
	k.settle()
	if z, err := k.Current(ctx, "k"); err != nil || z.VersionName() != "k@1" {
		t.Errorf("remembered %v, %v", z, err)
	}
}

// Between the questions about a key it is deleted, and another of its name is made.
func TestMaterialAndRulesAreOfOneKey(t *testing.T) {
	for what, look := range map[string]func(*Cache) (Ruled, error){
		"current": func(k *Cache) (Ruled, error) { return k.CurrentRuled(context.Background(), "k") },
		"version": func(k *Cache) (Ruled, error) { return k.VersionRuled(context.Background(), "k@0") },
	} {
		ctx, s := t.Context(), newStore()
		k := newCache(t, s, hadoopDefaults)
		create := func(aclName string) {
			k.Create(ctx, edek.Caller{}, &edek.NewKey{Name: "k", Attributes: map[string]string{edek.AttributeACLName: aclName}})
		}
		create("old")
		looked, release := s.hold() // has metadata of the old key
		got := make(chan Ruled)
		go func() {
			z, err := look(k)
			if err != nil {
				t.Error(err)
			}
			got <- z
		}()
		<-looked
		k.Delete(ctx, edek.Caller{}, "k")
		create("new")
		close(release)
		if z := <-got; z.ACLName != "new" || !bytes.Equal(z.AppendMaterial(nil), s.versions["k"][0]) {
			t.Errorf("%s: the rules are %s", what, z.ACLName)
		}
	}
}

// A load hears from another table that there is no such key, and then the key is
// created: that is as old as any other answer from before.
func TestRecalledErrorDoesNotOutliveCreate(t *testing.T) {
	var epoch atomic.Uint64
	loads := 0
	table, err := newTable(tableConfig[int]{name: "test", set: metrics.NewSet(), bytes: 1 << 20, typicalBytes: 100,
		epoch: func(string) *atomic.Uint64 { return &epoch }, cost: func(int) int64 { return 8 },
		load: func(context.Context, string) (int, error) {
			if loads++; loads == 1 {
				epoch.Add(1)
				return 0, recalled{missing("k")}
			}
			return 7, nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	defer table.close()
	if v, err := table.get(t.Context(), "k"); v != 7 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

// restless is a store in which a key changes whenever it is described.
type restless struct {
	*store
	changed func()
}

func (r *restless) Metadata(ctx context.Context, name string) (*edek.Metadata, error) {
	defer r.changed()
	return r.store.Metadata(ctx, name)
}

func TestKeyThatChangesAllTheWhile(t *testing.T) {
	ctx, s := t.Context(), &restless{store: newStore()}
	k := newCache(t, s, hadoopDefaults)
	s.changed = func() { k.Invalidate("k") }
	s.Create(ctx, &edek.NewKey{Name: "k"})
	f := func(what string, err error) {
		t.Helper()
		if edek.KindOf(err) != edek.Conflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := k.CurrentRuled(ctx, "k")
	f("current", err)
	_, err = k.VersionRuled(ctx, "k@0")
	f("version", err)
	looks := 0
	f("whole", k.Whole("k", func() error { looks++; s.changed(); return nil }))
	if looks != maxLooks {
		t.Errorf("looked %d times", looks)
	}
	failure := errors.New("disk on fire")
	if err := k.Whole("k", func() error { s.changed(); return failure }); err != failure {
		t.Errorf("got %v", err)
	}
}

func TestDeletedKeyIsGoneAtOnce(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	k.Create(ctx, edek.Caller{}, &edek.NewKey{Name: "k"})
	k.Current(ctx, "k")
	k.VersionRuled(ctx, "k@0")
	k.Metadata(ctx, "k")
	k.settle()
	if err := k.Delete(ctx, edek.Caller{}, "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Current(ctx, "k"); edek.KindOf(err) != edek.NotFound {
		t.Errorf("current: %v", err)
	}
	if _, err := k.VersionRuled(ctx, "k@0"); edek.KindOf(err) != edek.NotFound {
		t.Errorf("version: %v", err)
	}
	if _, _, err := k.Metadata(ctx, "k"); edek.KindOf(err) != edek.NotFound {
		t.Errorf("metadata: %v", err)
	}
}

func TestUnknownNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), newStore()
		k := newCache(t, s, hadoopDefaults)
		ask := func() error { _, _, err := k.Metadata(ctx, "k"); k.settle(); return err }
		if err := ask(); edek.KindOf(err) != edek.NotFound {
			t.Fatal(err)
		}
		before := s.asked.Load()
		if err := ask(); edek.KindOf(err) != edek.NotFound || s.asked.Load() != before {
			t.Errorf("not remembered: %v, asked %d times more", err, s.asked.Load()-before)
		}
		s.Create(ctx, &edek.NewKey{Name: "k"}) // behind the cache's back
		time.Sleep(unknownAge - time.Millisecond)
		if err := ask(); edek.KindOf(err) != edek.NotFound {
			t.Errorf("forgotten too early: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
		if err := ask(); err != nil {
			t.Errorf("still unknown after %v: %v", unknownAge, err)
		}
		k.Metadata(ctx, "other")
		k.settle()
		k.Create(ctx, edek.Caller{}, &edek.NewKey{Name: "other"})
		if _, _, err := k.Metadata(ctx, "other"); err != nil {
			t.Errorf("unknown after our own create: %v", err)
		}
	})
}

func TestAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), newStore()
		k := newCache(t, s, hadoopDefaults)
		s.Create(ctx, &edek.NewKey{Name: "k"})
		current := func() string {
			z, err := k.Current(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			k.settle()
			return z.VersionName()
		}
		versions := func() int {
			m, _, err := k.Metadata(ctx, "k")
			if err != nil {
				t.Fatal(err)
			}
			k.settle()
			return m.Versions
		}
		current()
		versions()
		s.Roll(ctx, "k", nil) // another writer of the same store
		time.Sleep(29 * time.Second)
		if v := current(); v != "k@0" {
			t.Errorf("after 29 s: %s", v)
		}
		time.Sleep(2 * time.Second)
		if v := current(); v != "k@1" {
			t.Errorf("after 31 s: %s", v)
		}
		for range 3 { // used again and again, metadata is never too old
			time.Sleep(9 * time.Minute)
			if n := versions(); n != 1 {
				t.Errorf("hot metadata asked again: %d versions", n)
			}
		}
		time.Sleep(10 * time.Minute)
		if n := versions(); n != 2 {
			t.Errorf("idle metadata kept: %d versions", n)
		}
	})
}

func TestOneQuestionForManyCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), newStore()
		k := newCache(t, s, hadoopDefaults)
		s.Create(ctx, &edek.NewKey{Name: "k"})
		_, release := s.hold()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, _, err := k.Metadata(ctx, "k"); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait for the one answer
		close(release)
		wg.Wait()
		if n := s.asked.Load(); n != 1 {
			t.Errorf("asked %d times for one key", n)
		}
	})
}

// All who ask during a walk share the next one, which sees every change that
// was acknowledged before they asked.
func TestNamesAreWalkedOnceForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), newStore()
		k := newCache(t, s, hadoopDefaults)
		looked, release := s.hold()
		var wg sync.WaitGroup
		wg.Go(func() { k.Names(ctx, edek.Caller{}) })
		<-looked
		if _, err := k.Create(ctx, edek.Caller{}, &edek.NewKey{Name: "k"}); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			wg.Go(func() {
				names, err := k.Names(ctx, edek.Caller{})
				if err != nil || !slices.Equal(names, []string{"k"}) {
					t.Errorf("%q, %v", names, err)
				}
				clear(names) // it is the caller's
			})
		}
		synctest.Wait()
		_, releaseSecond := s.hold()
		close(release)
		synctest.Wait()
		close(releaseSecond)
		wg.Wait()
		if n := s.asked.Load(); n != 2 {
			t.Errorf("walked %d times", n)
		}
	})
}

func TestAllVersionsAreOneQuestion(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	for range 20 {
		k.Roll(ctx, edek.Caller{}, "k", nil)
	}
	f := func(versions int, questions int64) {
		t.Helper()
		before := s.asked.Load()
		zones, err := k.Versions(ctx, "k")
		k.settle()
		if err != nil || len(zones) != versions || zones[versions-1].VersionName() != edek.VersionName("k", versions-1) {
			t.Errorf("%v, %v", zones, err)
		}
		if n := s.asked.Load() - before; n != questions {
			t.Errorf("%d questions", n)
		}
	}
	f(20, 1)
	f(20, 0)
	k.Roll(ctx, edek.Caller{}, "k", nil)
	f(21, 1)
	k.Delete(ctx, edek.Caller{}, "k")
	if _, err := k.Versions(ctx, "k"); edek.KindOf(err) != edek.NotFound {
		t.Errorf("after deletion: %v", err)
	}
}

func TestFailureIsToldAndNotRemembered(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	s.Create(ctx, &edek.NewKey{Name: "k"})
	s.fail = errors.New("disk on fire")
	if _, err := k.Current(ctx, "k"); !errors.Is(err, s.fail) {
		t.Errorf("got %v", err)
	}
	s.fail = nil
	if _, err := k.Current(ctx, "k"); err != nil {
		t.Errorf("after recovery: %v", err)
	}
}

func TestVersionNameWithoutVersion(t *testing.T) {
	k := newCache(t, newStore(), hadoopDefaults)
	if _, err := k.VersionRuled(t.Context(), "k"); edek.KindOf(err) != edek.NotFound {
		t.Errorf("got %v", err)
	}
}

// Two hundred times as many keys as fit: the bound holds and every answer is
// right all the same.
func TestManyKeysStayWithinBytes(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	k.metadata.known.UpdateMaxCost(20 << 10)
	for i := range 10_000 {
		name := fmt.Sprintf("key-%d", i)
		s.Create(ctx, &edek.NewKey{Name: name})
		if m, _, err := k.Metadata(ctx, name); err != nil || m.Name != name {
			t.Fatal(m, err)
		}
	}
	k.settle()
	if left := k.metadata.known.RemainingCost(); left < 0 {
		t.Errorf("%d bytes over the bound", -left)
	}
	alone, mostAlone := k.metadata.front.bytes()
	if now, most := k.metadata.bytes(); now < alone+10<<10 || most != mostAlone+20<<10+unknownBytes || now > most {
		t.Errorf("%d bytes of %d", now, most)
	}
}

// That a key was not there is not remembered anew of its versions.
func TestUnknownKeyIsUnknownNoLongerByItsVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), newStore()
		k := newCache(t, s, hadoopDefaults)
		k.Metadata(ctx, "k")
		k.settle()
		s.Create(ctx, &edek.NewKey{Name: "k"}) // behind the cache's back
		time.Sleep(unknownAge - time.Millisecond)
		asked := s.asked.Load()
		if _, err := k.VersionRuled(ctx, "k@0"); edek.KindOf(err) != edek.NotFound || s.asked.Load() != asked {
			t.Fatalf("not remembered: %v, asked %d times more", err, s.asked.Load()-asked)
		}
		k.settle()
		time.Sleep(2 * time.Millisecond)
		if _, err := k.VersionRuled(ctx, "k@0"); err != nil {
			t.Errorf("still unknown after %v: %v", unknownAge, err)
		}
	})
}

// What is remembered of a name that does not exist has the name, and the text of the
// error, which has it again.
func TestUnknownNamesCountTheirTexts(t *testing.T) {
	const size = 7000
	k := newCache(t, newStore(), hadoopDefaults)
	if _, _, err := k.Metadata(t.Context(), strings.Repeat("x", size)); edek.KindOf(err) != edek.NotFound {
		t.Fatal(err)
	}
	k.settle()
	unknown := k.metadata.unknown
	if got := unknown.MaxCost() - unknown.RemainingCost(); got < 2*size {
		t.Errorf("%d bytes for %d", got, 2*size)
	}
}

// Under load: of generate calls begun after a roll was acknowledged, none
// yields the old version, and no EDEK is handed out twice.
func TestRollAndUniquenessUnderLoad(t *testing.T) {
	ctx, s := t.Context(), newStore()
	k := newCache(t, s, hadoopDefaults)
	k.Create(ctx, edek.Caller{}, &edek.NewKey{Name: "k"})
	var acknowledged, handedOut atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	seen := make([]map[string]struct{}, 4)
	for w := range seen {
		seen[w] = map[string]struct{}{}
		wg.Go(func() {
			buf := make([]byte, 0, 64)
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := acknowledged.Load()
				z, err := k.Current(ctx, "k")
				if err != nil {
					t.Error(err)
					return
				}
				if _, n, _ := edek.SplitVersion(z.VersionName()); int64(n) < least {
					t.Errorf("%s after the roll to version %d was acknowledged", z, least)
					return
				}
				e, err := z.AppendGenerate(buf, 1)
				if err != nil {
					t.Error(err)
					return
				}
				if _, twice := seen[w][string(e)]; twice {
					t.Error("one EDEK twice")
					return
				}
				seen[w][string(e)] = struct{}{}
				handedOut.Add(1)
			}
		})
	}
	for range 300 {
		v, err := k.Roll(ctx, edek.Caller{}, "k", nil)
		if err != nil {
			t.Error(err)
			break
		}
		_, n, _ := edek.SplitVersion(v.VersionName)
		acknowledged.Store(int64(n))
		for after := handedOut.Load() + 200; handedOut.Load() < after && !t.Failed(); {
			runtime.Gosched() // until some were generated between this roll and the next
		}
	}
	close(stop)
	wg.Wait()
	all := map[string]struct{}{}
	total := 0
	for _, m := range seen {
		total += len(m)
		for e := range m {
			all[e] = struct{}{}
		}
	}
	if len(all) != total {
		t.Errorf("%d EDEKs handed out, only %d different", total, len(all))
	}
	if total < 1000 {
		t.Errorf("only %d EDEKs: no load", total)
	}
}

func BenchmarkCurrent(b *testing.B) {
	ctx, s := b.Context(), newStore()
	k := newCache(b, s, hadoopDefaults)
	k.Create(ctx, edek.Caller{}, &edek.NewKey{Name: "k"})
	k.Current(ctx, "k")
	k.settle()
	b.ReportAllocs()
	for b.Loop() {
		k.Current(ctx, "k")
	}
}
