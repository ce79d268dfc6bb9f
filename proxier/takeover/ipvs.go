package takeover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// ipvsInterface is where kube-proxy in IPVS mode keeps the addresses of all Services.
const ipvsInterface = "kube-ipvs0"

// IPVS is what the kernel has of IPVS.
type IPVS struct {
	Servers   int  // virtual servers, of kube-proxy or of another program
	Interface bool // kube-ipvs0 exists
}

// KubeProxy reports whether kube-proxy was here in IPVS mode.
func (v IPVS) KubeProxy() bool { return v.Interface }

func (v IPVS) String() string {
	return fmt.Sprintf("interface %s, %d virtual servers of IPVS", ipvsInterface, v.Servers)
}

// FindIPVS returns what the kernel has of IPVS.
func FindIPVS() (IPVS, error) {
	var v IPVS
	// /proc/net would be that of the process's first thread.
	list, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return v, fmt.Errorf("list virtual servers of IPVS: %w", err)
	}
	v.Servers = countServers(string(list))
	_, err = netlink.LinkByName(ipvsInterface)
	var notFound netlink.LinkNotFoundError
	switch {
	case err == nil:
		v.Interface = true
	case !errors.As(err, &notFound):
		return v, fmt.Errorf("find interface %s: %w", ipvsInterface, err)
	}
	return v, nil
}

// countServers counts the virtual servers in /proc/net/ip_vs: each has a line that begins with the protocol,
// and its destinations on the lines below it.
func countServers(list string) (n int) {
	for line := range strings.Lines(list) {
		for _, protocol := range []string{"TCP ", "UDP ", "SCTP ", "FWM "} {
			if strings.HasPrefix(line, protocol) {
				n++
			}
		}
	}
	return n
}
