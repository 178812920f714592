package cpu

import (
	"errors"
	"os"
	"strconv"
	"strings"
)

// Machine is how the processors of this machine have spent their time so far, in
// ticks of the kernel's clock.
type Machine struct{ busy, all uint64 }

// ReadMachine reads /proc/stat.
func ReadMachine() (Machine, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return Machine{}, err
	}
	return parseMachine(string(text))
}

// parseMachine reads the first line of proc_stat(5): user, nice, system, idle,
// iowait, irq, softirq, steal. What follows is counted in these already. Time that
// a hypervisor took away counts as busy: nobody here could use it.
func parseMachine(text string) (m Machine, err error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return Machine{}, errors.New("/proc/stat does not begin with the sum of all processors")
	}
	for i, field := range fields[1:9] {
		n, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			return Machine{}, err
		}
		m.all += n
		if i != 3 && i != 4 {
			m.busy += n
		}
	}
	return m, nil
}

// BusySince returns the share of its time that the machine was busy since an
// earlier reading, 0 when too little time has passed to tell.
func (m Machine) BusySince(earlier Machine) float64 {
	const least = 10
	if m.all < earlier.all+least || m.busy < earlier.busy {
		return 0
	}
	return float64(m.busy-earlier.busy) / float64(m.all-earlier.all)
}
