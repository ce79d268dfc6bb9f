package config

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/nftproxy/nftproxy/rules"
)

// Values of --connection-counters.
const (
	CountAuto      = "auto"      // to Services, and to endpoints while that takes little memory
	CountEndpoints = "endpoints" // to Services and endpoints
	CountServices  = "services"  // to Services
	CountOff       = "off"
)

// What counters of endpoints take at most with CountAuto: so many bytes, and a share of the memory limit of
// the process, because the kernel charges them to its cgroup.
const (
	endpointCounters = 32 << 20
	counterShare     = 8
)

// counterBytes returns the memory of a counter: packets and bytes for each CPU, of 8 bytes each
// (net/netfilter/nft_counter.c), and 64 bytes for the element that grows and for the account of the cgroup
// (measured on Linux 6.18).
func counterBytes(cpus int) int { return 16*cpus + 64 }

// Counters returns which connections the kernel counts on a node with so many CPUs, by a process with so many
// bytes of memory.
func (c *Config) Counters(cpus int, memory int64) rules.Counters {
	switch c.ConnectionCounters {
	case CountOff:
		return rules.Counters{}
	case CountServices:
		return rules.Counters{Services: true}
	case CountEndpoints:
		return rules.Counters{Services: true, Endpoints: math.MaxInt}
	}
	room := int(min(endpointCounters, memory/counterShare))
	return rules.Counters{Services: true, Endpoints: room / counterBytes(cpus)}
}

// counterValue is the flag --connection-counters.
type counterValue struct{ stringValue }

func counterFlag(to *string) pflag.Value { return counterValue{stringValue{to, "string"}} }

func (v counterValue) Set(s string) error {
	values := []string{CountAuto, CountEndpoints, CountServices, CountOff}
	if !slices.Contains(values, s) {
		return fmt.Errorf("want one of %s", strings.Join(values, ", "))
	}
	return v.stringValue.Set(s)
}
