package host

import (
	"fmt"
	"os"
	"strings"
)

// Forwarding returns what keeps the host from forwarding packets to endpoints on
// other nodes and to pods, as advice to the operator; nothing if it forwards.
func Forwarding(ipv4, ipv6 bool) []string {
	var advice []string
	for _, f := range []struct {
		use  bool
		path string
	}{
		{ipv4, "net/ipv4/ip_forward"},
		{ipv6, "net/ipv6/conf/all/forwarding"},
	} {
		if !f.use {
			continue
		}
		value, err := os.ReadFile("/proc/sys/" + f.path)
		if err == nil && strings.TrimSpace(string(value)) == "0" {
			advice = append(advice, fmt.Sprintf("sysctl %s is 0: connections to endpoints on other nodes and to pods are not forwarded; set it to 1",
				strings.ReplaceAll(f.path, "/", ".")))
		}
	}
	return advice
}
