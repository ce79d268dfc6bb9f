package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Question is what the operator asks.
type Question struct {
	// Target is namespace/name[:port], IP:port[/protocol] or a nodePort[/protocol].
	Target string `json:"target"`
	// From is the client: an IP, pod, node or outside. Empty means pod.
	From string `json:"from,omitempty"`
}

// target is a parsed Target. It names a Service, or an address and port, or a nodePort.
type target struct {
	name     service.Name
	portName string // of the Service: a name or number; empty: its first port

	addr     netip.Addr // invalid for a nodePort
	port     uint16
	protocol service.Protocol // 0: the Service's; with an address TCP
}

func (t target) isService() bool { return t.name != service.Name{} }

// parseTarget parses a Target.
func parseTarget(text string) (target, error) {
	rest, protocol := cutProtocol(text)
	t := target{protocol: protocol}
	if to, err := netip.ParseAddrPort(rest); err == nil && to.Port() != 0 {
		t.addr, t.port = to.Addr().Unmap(), to.Port()
		return t.orTCP(), nil
	}
	if port, err := strconv.ParseUint(rest, 10, 16); err == nil && port != 0 {
		t.port = uint16(port)
		return t.orTCP(), nil
	}
	namespace, name, found := strings.Cut(rest, "/")
	name, t.portName, _ = strings.Cut(name, ":")
	if _, err := netip.ParseAddr(rest); err == nil || !found || name == "" ||
		strings.Contains(name, "/") || namespace == "" || strings.ContainsAny(namespace, ":.") {
		return target{}, fmt.Errorf("%q: want namespace/name[:port], IP:port[/protocol] or a nodePort", text)
	}
	t.name = service.Name{Namespace: namespace, Name: name}
	return t, nil
}

func (t target) orTCP() target {
	if t.protocol == 0 {
		t.protocol = service.TCP
	}
	return t
}

// cutProtocol cuts /tcp, /udp or /sctp off. In namespace/tcp it is the name of a Service.
func cutProtocol(text string) (string, service.Protocol) {
	i := strings.LastIndexByte(text, '/')
	if i < 0 {
		return text, 0
	}
	before, last := text[:i], strings.ToLower(text[i+1:])
	if !strings.ContainsAny(before, "/:") && strings.Trim(before, "0123456789") != "" {
		return text, 0
	}
	for _, p := range service.Protocols() {
		if p.String() == last {
			return before, p
		}
	}
	return text, 0
}

// address returns a frontend in the words of the command line: 10.96.0.10:80/tcp.
func address(f service.Frontend) string {
	return netip.AddrPortFrom(f.Addr, f.Port).String() + "/" + f.Protocol.String()
}
