package audit

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

func countLine(op string, n int, interval int) string {
	return fmt.Sprintf("OK[op=%s, key=k, user=u, accessCount=%d, interval=%dms] ", op, n, interval)
}

func TestAggregationStepByStep(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		hit := func(n int) {
			for range n {
				l.Count(by("u", DecryptEEK, "k"))
			}
		}
		time.Sleep(time.Millisecond) // off the sweeper's beat

		hit(1)
		wantNext(t, s, "the first hit is logged at once", countLine("DECRYPT_EEK", 1, 0))
		hit(4)
		time.Sleep(9 * time.Second)
		wantNext(t, s, "later ones are only counted")

		time.Sleep(2 * time.Second)
		wantNext(t, s, "the window ends with the total, the first hit included; swept at the next beat",
			countLine("DECRYPT_EEK", 5, 10999))

		hit(1)
		wantNext(t, s, "a hit in the second window is not logged at once")
		hit(1)
		time.Sleep(11 * time.Second)
		wantNext(t, s, "the second window counts from zero, the interval from the first hit",
			countLine("DECRYPT_EEK", 2, 20999))

		time.Sleep(11 * time.Second)
		wantNext(t, s, "a window without hits ends silently")
		hit(1)
		wantNext(t, s, "and the next hit is a first one again", countLine("DECRYPT_EEK", 1, 0))
		time.Sleep(60 * time.Second)
		wantNext(t, s, "a lone hit makes two lines", countLine("DECRYPT_EEK", 1, 10999))
	})
}

func TestAggregationKeepsTriplesApart(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		f := func(op Op, user, key, want string) {
			t.Helper()
			l.Count(by(user, op, key))
			wantNext(t, s, want, "OK["+want+", accessCount=1, interval=0ms] ")
			l.Count(by(user, op, key))
			wantNext(t, s, "again "+want)
		}
		f(GenerateEEK, "u", "k", "op=GENERATE_EEK, key=k, user=u")
		f(DecryptEEK, "u", "k", "op=DECRYPT_EEK, key=k, user=u")
		f(ReencryptEEK, "u", "k", "op=REENCRYPT_EEK, key=k, user=u")
		f(GetKeyVersion, "u", "k", "op=GET_KEY_VERSION, key=k, user=u")
		f(GetCurrentKey, "u", "k", "op=GET_CURRENT_KEY, key=k, user=u")
		f(GenerateEEK, "k", "u", "op=GENERATE_EEK, key=u, user=k")
		// Hadoop joins user, key and operation by '#', which makes one of these.
		f(GenerateEEK, "u#k", "k", "op=GENERATE_EEK, key=k, user=u#k")
		f(GenerateEEK, "u", "k#k", "op=GENERATE_EEK, key=k#k, user=u")
	})
}

func TestDenialFlushesItsTriple(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Log, s *sink) {
		for range 3 {
			l.Count(by("u", GenerateEEK, "k"))
		}
		wantNext(t, s, "first", countLine("GENERATE_EEK", 1, 0))
		time.Sleep(2 * time.Second)
		l.Unauthorized(by("u", KeyGenerateEEK, "k"))
		wantNext(t, s, "the key layer's right of the same name flushes nothing", "UNAUTHORIZED[op=GENERATE_EEK, key=k, user=u] ")
		l.Unauthorized(by("u", GenerateEEK, "other"))
		wantNext(t, s, "nor does another key", "UNAUTHORIZED[op=GENERATE_EEK, key=other, user=u] ")
		l.Unauthorized(by("u", GenerateEEK, "k"))
		wantNext(t, s, "the operation's denial does", countLine("GENERATE_EEK", 3, 2000),
			"UNAUTHORIZED[op=GENERATE_EEK, key=k, user=u] ")
		l.Count(by("u", GenerateEEK, "k"))
		wantNext(t, s, "and begins a second window")
		time.Sleep(10 * time.Second)
		wantNext(t, s, "which counts from zero", countLine("GENERATE_EEK", 1, 12000))
		l.Unauthorized(by("u", GenerateEEK, "k"))
		wantNext(t, s, "nothing pending", "UNAUTHORIZED[op=GENERATE_EEK, key=k, user=u] ")
		l.Count(by("u", GenerateEEK, "k"))
		wantNext(t, s, "an entry without hits was removed", countLine("GENERATE_EEK", 1, 0))
	})
}

// roomFor is the memory for n entries of one user with short names.
func roomFor(n int) int {
	return maxEntryBytes + int((&known{}).bytes()) + 2 + (n-1)*int((&entry{}).bytes()+1)
}

func TestOldestEntryMakesRoom(t *testing.T) {
	bubble(t, Options{CountBytes: roomFor(2)}, func(t *testing.T, l *Log, s *sink) {
		l.Count(by("u", DecryptEEK, "a"))
		time.Sleep(time.Second)
		l.Count(by("u", DecryptEEK, "k"))
		l.Count(by("u", DecryptEEK, "a"))
		synctest.Wait()
		s.next()
		time.Sleep(time.Second)
		l.Count(by("u", DecryptEEK, "c"))
		wantNext(t, s, "the third entry",
			"OK[op=DECRYPT_EEK, key=a, user=u, accessCount=2, interval=2000ms] ",
			"OK[op=DECRYPT_EEK, key=c, user=u, accessCount=1, interval=0ms] ")
		l.Count(by("u", DecryptEEK, "k"))
		wantNext(t, s, "the second is still there")
	})
}

// A hit that has a line of its own is not lost with the total of its window. Those
// of a later window are.
func TestHitWithLineIsNotLostWithTotal(t *testing.T) {
	f := func(windows, lost int, remove func(l *Log)) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			s := new(sink)
			l := New(s, Options{QueueBytes: 100, CountBytes: roomFor(1)})
			l.Count(by("u", DecryptEEK, "k"))
			for range windows {
				time.Sleep(11 * time.Second)
				synctest.Wait()
				l.Count(by("u", DecryptEEK, "k"))
			}
			synctest.Wait()
			if !strings.Contains(s.next(), countLine("DECRYPT_EEK", 1, 0)) {
				t.Fatal("the first hit has no line")
			}
			s.fail(syscall.ENOSPC, 0)
			l.OK(by("u", GetKeys, ""), "") // the writer has this one
			synctest.Wait()
			for l.Lost() == 0 {
				l.OK(by("u", GetKeys, ""), "")
			}
			before := l.Lost()
			remove(l)
			if got := l.Lost() - before; got != uint64(lost) {
				t.Errorf("%d are lost, want %d", got, lost)
			}
			s.fail(nil, 0)
			if err := l.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	evicted := func(l *Log) { l.Count(by("u", DecryptEEK, "other")) }
	f(0, 0, evicted)
	f(1, 1, evicted)
	drained := func(l *Log) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // no time to wait for room
		l.drain(ctx)
	}
	f(0, 0, drained)
	f(1, 1, drained)
}

var counted = regexp.MustCompile(`key=(\d+), user=u, accessCount=(\d+), interval=(\d+)ms`)

// hammer counts hits on 12 keys from eight goroutines and returns how many.
func hammer(l *Log, hits int) int {
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			var key []byte
			for i := range hits {
				key = strconv.AppendInt(key[:0], int64((i*7+w)%12), 10)
				// A view of what is overwritten, as in the server.
				l.Count(by("u", DecryptEEK, unsafe.String(&key[0], len(key))))
			}
		})
	}
	wg.Wait()
	return workers * hits
}

// Entries come, end a window and die all the time, and each hit is reported once.
func TestConcurrentHitsAndEndingWindows(t *testing.T) {
	s := new(sink)
	l := New(s, Options{Window: 2 * time.Millisecond, QueueBytes: 1 << 28})
	hits := hammer(l, 4000)
	for empty := false; !empty; time.Sleep(time.Millisecond) {
		l.table.mu.Lock()
		empty = l.table.oldest == nil
		l.table.mu.Unlock()
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	reported := 0
	for _, m := range counted.FindAllStringSubmatch(s.next(), -1) {
		if m[3] == "0" { // the first line of an entry, whose hit is in its total too
			continue
		}
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		reported += n
	}
	if reported != hits || l.Lost() != 0 {
		t.Errorf("%d hits reported of %d, %d lost", reported, hits, l.Lost())
	}
}

// Entries push each other out all the time, and each hit is reported once.
func TestConcurrentHitsAndEviction(t *testing.T) {
	s := new(sink)
	l := New(s, Options{Window: time.Hour, CountBytes: roomFor(8), QueueBytes: 1 << 28})
	hits := hammer(l, 400)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	reported, total := 0, map[string]bool{}
	for _, m := range counted.FindAllStringSubmatch(s.next(), -1) {
		// Each entry has a first line and a total.
		if !total[m[1]] {
			total[m[1]] = true
			continue
		}
		total[m[1]] = false
		n, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		reported += n
	}
	if reported != hits || l.Lost() != 0 {
		t.Errorf("%d hits reported of %d, %d lost", reported, hits, l.Lost())
	}
}

// What is counted takes no more memory than it says, and says no more than the
// bound: with names as long as may be and ten times as many as fit.
func TestCountedBytes(t *testing.T) {
	const fit = 1000
	name := strings.Repeat("n", maxNames-20)
	t.Run("one user", func(t *testing.T) {
		testCountedBytes(t, 10*fit, fit*int((&entry{key: name}).bytes()), func(i int) Event {
			return by("u", DecryptEEK, fmt.Sprintf("%s%06d", name, i))
		})
	})
	t.Run("a user each", func(t *testing.T) {
		testCountedBytes(t, 10*fit, fit*int((&entry{}).bytes()+(&known{sender: sender{realFull: name}}).bytes()), func(i int) Event {
			return by(fmt.Sprintf("%s%06d", name[:len(name)/2], i), DecryptEEK, "k")
		})
	})
	t.Run("one user, short names", func(t *testing.T) {
		testCountedBytes(t, 100*fit, 4<<20, func(i int) Event { return by("u", DecryptEEK, fmt.Sprintf("key%07d", i)) })
	})
}

func testCountedBytes(t *testing.T, events, limit int, event func(i int) Event) {
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	before := heap()
	l := New(io.Discard, Options{Window: time.Hour, CountBytes: limit, QueueBytes: 64 << 10})
	for i := range events {
		l.Count(event(i))
	}
	now, most := l.CountedBytes()
	if grown := heap() - before; now > most || grown > now || grown < now/2 {
		t.Errorf("it says that it holds %d bytes of %d, and holds %d", now, most, grown)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if l.table.taken != 0 || len(l.table.senders) != 0 {
		t.Errorf("%d bytes and %d senders are left", l.table.taken, len(l.table.senders))
	}
}

func TestCountAllocatesNothing(t *testing.T) {
	l := New(new(sink), Options{})
	defer l.Close(t.Context())
	key := "key one"
	l.Count(by("hdfs/nn1@REALM", GenerateEEK, key))
	if n := testing.AllocsPerRun(1000, func() { l.Count(by("hdfs/nn1@REALM", GenerateEEK, key)) }); n != 0 {
		t.Errorf("%v allocations per counted hit", n)
	}
}

func BenchmarkCount(b *testing.B) {
	l := New(new(sink), Options{})
	defer l.Close(b.Context())
	key := "key one"
	b.ReportAllocs()
	for b.Loop() {
		l.Count(by("hdfs/nn1@REALM", GenerateEEK, key))
	}
}
