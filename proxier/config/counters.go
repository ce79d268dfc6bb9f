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

// Memory of counters: the kernel keeps the packets and bytes of each counter for each CPU that the node may
// have, 8 bytes each (net/netfilter/nft_counter.c).
const (
	counterBytes     = 16
	endpointCounters = 32 << 20 // bytes that counters of endpoints take at most, with CountAuto
)

// Counters returns which connections the kernel counts on a node with so many CPUs.
func (c *Config) Counters(cpus int) rules.Counters {
	switch c.ConnectionCounters {
	case CountOff:
		return rules.Counters{}
	case CountServices:
		return rules.Counters{Services: true}
	case CountEndpoints:
		return rules.Counters{Services: true, Endpoints: math.MaxInt}
	}
	return rules.Counters{Services: true, Endpoints: endpointCounters / (counterBytes * cpus)}
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
