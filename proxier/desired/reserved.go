package desired

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/nftproxy/nftproxy/proxier/config"
	"github.com/nftproxy/nftproxy/rules/service"
)

// kubeletPort is where a kubelet serves its API, on all addresses of its node. `kubectl logs` and `exec` need
// it, and the configuration of kube-proxy does not have it.
const kubeletPort = 10250

// reserved returns the frontends at the node's own addresses that no Service may have: the ports of the
// kubelet and of nftproxy's health and metrics. Whoever could take them would answer for the node.
func reserved(c *config.Config, addrs []netip.Addr) map[service.Frontend]service.Reservation {
	ports := map[uint16]string{kubeletPort: "the kubelet"}
	for use, bind := range map[string]string{
		"the metrics of nftproxy": c.Kube.MetricsBindAddress, "the health of nftproxy": c.Kube.HealthzBindAddress,
	} {
		if port, ok := portOf(bind); ok {
			ports[port] = use
		}
	}
	out := map[service.Frontend]service.Reservation{}
	for _, a := range addrs {
		for port, use := range ports {
			out[service.Frontend{Addr: a, Protocol: service.TCP, Port: port}] = service.Reservation{Use: use}
		}
	}
	return out
}

// portOf returns the port of an address to listen on; there is none if it is empty.
func portOf(bind string) (uint16, bool) {
	_, text, err := net.SplitHostPort(bind)
	if err != nil {
		return 0, false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil
}

// ownAddrs returns the addresses of the node on which a Service could have a frontend: those of nodePorts,
// also on loopback, and others of the node. It leaves out link-local ones that serve no nodePort, which
// Services cannot have: every interface of a pod has another.
func ownAddrs(nodePorts, loopback, ofNode, ofHost []netip.Addr) []netip.Addr {
	ofHost = slices.DeleteFunc(slices.Concat(ofNode, ofHost), func(a netip.Addr) bool {
		return a.IsLoopback() || a.IsLinkLocalUnicast()
	})
	return slices.Concat(nodePorts, loopback, ofHost)
}

// ReserveAPIServer reserves the addresses and ports at which nftproxy dials the API server: a Service that
// had one of them would cut nftproxy off from it, and its removal would never arrive. The Service
// default/kubernetes may have them, because its endpoints are the API server: nftproxy may itself dial its
// ClusterIP, if something else serves that.
func (e *Environment) ReserveAPIServer(dialed []netip.AddrPort) {
	for _, d := range dialed {
		f := service.Frontend{Addr: d.Addr().Unmap(), Protocol: service.TCP, Port: d.Port()}
		e.Node.Reserved[f] = service.Reservation{
			Use: "the API server", By: service.Name{Namespace: "default", Name: "kubernetes"},
		}
	}
}
