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

const (
	sysctlDir  = "/proc/sys/net/netfilter"
	onlineCPUs = "/sys/devices/system/cpu/online"
)

// mostFlows is what kube-proxy limits the scaled maximum to, for the memory it takes.
const mostFlows = 1 << 20

// Sysctls are kube-proxy's conntrack settings. What is zero is left to the kernel.
type Sysctls struct {
	MaxPerCore int // flows to track for each CPU
	Min        int // flows to track at least; nothing if MaxPerCore is 0

	// Timeouts are set in whole seconds.
	TCPEstablishedTimeout time.Duration
	TCPCloseWaitTimeout   time.Duration
	UDPTimeout            time.Duration
	UDPStreamTimeout      time.Duration

	TCPBeLiberal bool
}

// Set sets them in the network namespace of the calling thread, where they differ, in both directions as kube-proxy
// does. It returns what could not be set, for instance where /proc/sys is read-only, or in a namespace other than
// the host's, where the number of flows cannot be set: a proxy works without.
//
// The kernel must have connection tracking loaded, which it has once there are rules.
func (s Sysctls) Set() []error { return s.set(sysctlDir, countCPUs(onlineCPUs)) }

func (s Sysctls) set(dir string, cpus int) []error {
	var errs []error
	try := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if most := s.max(cpus); most > 0 {
		try(setSysctl(dir, "nf_conntrack_max", func(is int) int { return most }))
		// The table must grow with what it is to hold, but never shrinks.
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

// max is how many flows to track; zero leaves it to the kernel.
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

// setSysctl replaces a value with what it should be.
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

// countCPUs returns how many CPUs the machine has; those that this process may use can be fewer.
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
