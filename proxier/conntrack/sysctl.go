package conntrack

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const onlineCPUs = "/sys/devices/system/cpu/online"

// mostFlows is kube-proxy's limit for the scaled maximum, which bounds the memory of the table.
const mostFlows = 1 << 20

// Sysctls are kube-proxy's conntrack settings. Set leaves a setting that is zero as it is.
type Sysctls struct {
	MaxPerCore int // flows to track for each CPU
	Min        int // flows to track at least; ignored if MaxPerCore is 0

	// Timeouts are set in whole seconds.
	TCPEstablishedTimeout time.Duration
	TCPCloseWaitTimeout   time.Duration
	UDPTimeout            time.Duration
	UDPStreamTimeout      time.Duration

	TCPBeLiberal bool
}

// Set writes the settings that differ, in the network namespace of the calling thread. Like kube-proxy it
// raises and lowers values. It returns an error for each setting that it cannot write, for example because
// /proc/sys is read-only, or because only the host's namespace can set the number of flows. A proxy works
// without them.
//
// netDir is /proc/sys/net, or where it is mounted. The kernel must have connection tracking loaded, which the
// rules and their probe cause.
func (s Sysctls) Set(netDir string) []error {
	return s.set(filepath.Join(netDir, "netfilter"), countCPUs(onlineCPUs))
}

func (s Sysctls) set(dir string, cpus int) []error {
	var errs []error
	try := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if most := s.max(cpus); most > 0 {
		try(setSysctl(dir, "nf_conntrack_max", func(is int) int { return most }))
		// The hash table must grow with the number of flows, and never shrinks.
		try(setSysctl(dir, "nf_conntrack_buckets", func(is int) int { return max(is, most/4) }))
	}
	for _, timeout := range []struct {
		name  string
		value time.Duration
	}{
		{"nf_conntrack_tcp_timeout_established", s.TCPEstablishedTimeout},
		{"nf_conntrack_tcp_timeout_close_wait", s.TCPCloseWaitTimeout},
		{"nf_conntrack_udp_timeout", s.UDPTimeout},
		{"nf_conntrack_udp_timeout_stream", s.UDPStreamTimeout},
	} {
		if timeout.value > 0 {
			try(setSysctl(dir, timeout.name, func(is int) int { return int(timeout.value / time.Second) }))
		}
	}
	if s.TCPBeLiberal {
		try(setSysctl(dir, "nf_conntrack_tcp_be_liberal", func(is int) int { return 1 }))
	}
	return errs
}

// max returns how many flows to track; 0 leaves this to the kernel.
func (s Sysctls) max(cpus int) int {
	if s.MaxPerCore <= 0 {
		return 0
	}
	scaled := s.MaxPerCore * cpus
	if scaled > mostFlows {
		return mostFlows // even if Min is more, as in kube-proxy
	}
	return max(scaled, s.Min)
}

// setSysctl sets a value to want of the current one.
func setSysctl(dir, name string, want func(is int) int) error {
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("set sysctl net.netfilter.%s: %w", name, err)
	}
	is, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return fmt.Errorf("set sysctl net.netfilter.%s: %w", name, err)
	}
	value := want(is)
	if value == is {
		return nil
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(value)), 0); err != nil {
		return fmt.Errorf("set sysctl net.netfilter.%s to %d: %w", name, value, err)
	}
	return nil
}

// countCPUs returns how many CPUs the machine has, which can be more than this process may use.
func countCPUs(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return runtime.NumCPU()
	}
	n, err := countList(strings.TrimSpace(string(text)))
	if err != nil {
		return runtime.NumCPU()
	}
	return n
}

// countList counts the numbers of a list like 0-3,8,10-11.
func countList(list string) (int, error) {
	n := 0
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.Atoi(from)
		if err != nil {
			return 0, fmt.Errorf("list of CPUs %q: %w", list, err)
		}
		last, err := strconv.Atoi(to)
		if err != nil {
			return 0, fmt.Errorf("list of CPUs %q: %w", list, err)
		}
		n += last - first + 1
	}
	return n, nil
}
