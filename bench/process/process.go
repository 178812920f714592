// Package process starts the servers of a measurement on a core of their own and
// reads what they used.
//
// CPU time is the kernel's own account of the whole process, all threads and dead
// ones too, to the nanosecond: what clock_gettime gives for the process's CPU
// clock. It holds user and system time; the kernel's work for a packet is charged
// to whoever sends it, so part of a server's receiving is the client's.
package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a child that was started on one core.
type Process struct {
	Started time.Time // just before it was

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the exit, once exited is closed
}

// Root returns the folder that holds go.mod, looked for from the working folder up.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod in this folder or above it: run this inside the repository")
		}
		dir = parent
	}
}

var (
	building sync.Mutex
	built    = map[string]string{} // paths of binaries, by their names
)

// Build compiles a package of this repository, once in the life of this process,
// and returns the binary's path, below .cache/bench of the repository.
func Build(pkg string) (string, error) {
	return compile(filepath.Base(pkg), "build", "-trimpath", pkg)
}

// BuildTest compiles the tests of a package.
func BuildTest(pkg string) (string, error) {
	return compile(filepath.Base(pkg)+".test", "test", "-c", pkg)
}

func compile(name, verb string, args ...string) (string, error) {
	building.Lock()
	defer building.Unlock()
	if path := built[name]; path != "" {
		return path, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(root, ".cache", "bench", name)
	build := exec.Command("go", append([]string{verb, "-o", binary}, args...)...)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s %s: %w\n%s", verb, strings.Join(args, " "), err, out)
	}
	built[name] = binary
	return binary, nil
}

// PinSelf moves this process, all its threads and those it will have, to one core.
func PinSelf(cpu int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			return err
		}
		if err := pin(tid, cpu); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("moving thread %d to core %d: %w", tid, cpu, err)
		}
	}
	return nil
}

func pin(tid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(tid, &set)
}

// Start runs cmd on one core from its first instruction on. A child ends with its
// parent. Stop it before the program ends.
func Start(cmd *exec.Cmd, cpu int) (*Process, error) {
	// The child has the affinity of the thread that forks it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	if err := pin(0, cpu); err != nil {
		return nil, fmt.Errorf("core %d: %w (does this machine have it?)", cpu, err)
	}
	p := &Process{cmd: cmd, exited: make(chan struct{}), Started: time.Now()}
	err := cmd.Start()
	if restored := unix.SchedSetaffinity(0, &before); restored != nil {
		err = errors.Join(err, restored)
	}
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// ID is the process's id.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait waits for the process to end of its own accord, and returns how it did.
func (p *Process) Wait() error {
	<-p.exited
	return p.err
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// stopTime is how long a process may take to end by SIGTERM.
const stopTime = 20 * time.Second

// Stop ends the process by SIGTERM, or by SIGKILL where that isn't heard, and
// returns how it ended. An edekd must end with status 0.
func (p *Process) Stop() error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.exited:
		return p.err
	case <-time.After(stopTime):
		err := p.cmd.Process.Kill()
		<-p.exited
		return errors.Join(fmt.Errorf("process %d did not end within %v of SIGTERM", p.ID(), stopTime), err)
	}
}

// CPU returns the CPU time the process has used so far.
func (p *Process) CPU() (time.Duration, error) { return CPU(p.ID()) }

// CPU returns the CPU time a process has used so far.
func CPU(pid int) (time.Duration, error) {
	// CPUCLOCK_SCHED (2) of a process, as clock_getcpuclockid(3) makes it.
	clock := int32(^pid<<3 | 2)
	var used unix.Timespec
	if err := unix.ClockGettime(clock, &used); err != nil {
		return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(used.Nano()), nil
}

// Resident returns the bytes of memory the process holds at the moment.
func (p *Process) Resident() (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.ID()))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if rest, found := strings.CutPrefix(string(line), "VmRSS:"); found {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("process %d says nothing of its memory", p.ID())
}

// Await reads lines until one satisfies found, and leaves the rest to sink. It is
// an error when r ends first, or time runs out.
func Await(r io.Reader, sink io.Writer, limit time.Duration, found func(line string) bool) error {
	result := make(chan error, 1)
	go func() {
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			io.WriteString(sink, line)
			if err != nil {
				result <- fmt.Errorf("it ended before it was ready: %w", err)
				return
			}
			if found(line) {
				break
			}
		}
		result <- nil
		io.Copy(sink, lines)
	}()
	select {
	case err := <-result:
		return err
	case <-time.After(limit):
		return fmt.Errorf("it was not ready within %v", limit)
	}
}
