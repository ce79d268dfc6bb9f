package host

import (
	"os"
	"strings"

	"github.com/nftproxy/nftproxy/rules/service"
)

// NotForwarding returns the sysctls that are 0 and so keep the host from forwarding packets of these families
// to pods and to endpoints on other nodes.
func NotForwarding(families []service.Family) (sysctls []string) {
	for _, f := range families {
		path := "net/ipv4/ip_forward"
		if f == service.IPv6 {
			path = "net/ipv6/conf/all/forwarding"
		}
		value, err := os.ReadFile("/proc/sys/" + path)
		if err == nil && strings.TrimSpace(string(value)) == "0" {
			sysctls = append(sysctls, strings.ReplaceAll(path, "/", "."))
		}
	}
	return sysctls
}
