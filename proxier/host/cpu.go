package host

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// CPUs returns how many CPUs the kernel reserves memory for: all that the machine may have, also those that
// are not plugged in, and those that this process may not use.
func CPUs() int {
	list, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return runtime.NumCPU()
	}
	return max(countCPUs(string(list)), runtime.NumCPU())
}

// countCPUs counts the CPUs of a list of the kernel, such as "0-3,8".
func countCPUs(list string) (n int) {
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(to)
		}
		if err == nil {
			n += last - first + 1
		}
	}
	return n
}
