package report

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what figures depend on besides the code.
type Machine struct {
	Host     string `json:"host"`
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Siblings string `json:"siblings"` // hardware threads that share a core with the server's
	Governor string `json:"governor"` // of the CPU's clock, where the kernel says
	Memory   int64  `json:"memoryBytes"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	Virtual  bool   `json:"virtual"` // a guest: the host may run something else meanwhile
	// Steal is the part of the run, of all cores, in which the host did so.
	Steal float64 `json:"steal"`
}

// ThisMachine describes the machine whose core serverCPU runs the servers.
func ThisMachine(serverCPU int) Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	m.Host, _ = os.Hostname()
	info := field("/proc/cpuinfo")
	m.CPU, m.Virtual = info["model name"], strings.Contains(" "+info["flags"]+" ", " hypervisor ")
	if kib, found := strings.CutSuffix(field("/proc/meminfo")["MemTotal"], " kB"); found {
		n, _ := strconv.ParseInt(kib, 10, 64)
		m.Memory = n << 10
	}
	cpu := fmt.Sprintf("/sys/devices/system/cpu/cpu%d/", serverCPU)
	m.Siblings, m.Governor = word(cpu+"topology/thread_siblings_list"), word(cpu+"cpufreq/scaling_governor")
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return m
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9]+`)

// Name is the machine in the name of a file.
func (m Machine) Name() string {
	return strings.Trim(notInNames.ReplaceAllString(fmt.Sprintf("%s-%dcores", m.CPU, m.Cores), "-"), "-")
}

// Same says whether figures of two machines may be compared.
func (m Machine) Same(o Machine) bool { return m.CPU == o.CPU && m.Cores == o.Cores && m.Go == o.Go }

// field reads the lines "name : value" of a file; of a name that comes again the
// first counts.
func field(path string) map[string]string {
	fields := map[string]string{}
	text, _ := os.ReadFile(path)
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(string(line), ":")
		if name = strings.TrimSpace(name); fields[name] == "" {
			fields[name] = strings.TrimSpace(value)
		}
	}
	return fields
}

func word(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// Stolen returns the time since the start of the machine that its host gave to
// others, and all time, in the kernel's ticks.
func Stolen() (stolen, all float64) {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, word := range strings.Fields(line) {
		n, _ := strconv.ParseFloat(word, 64)
		if i == 8 {
			stolen = n
		}
		if i <= 8 { // the rest is counted in what came before
			all += n
		}
	}
	return stolen, all
}

// Commit names the code, with a mark when it is not as committed.
func Commit(root string) string {
	git := exec.Command("git", "describe", "--always", "--dirty", "--abbrev=10")
	git.Dir = root
	out, err := git.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
