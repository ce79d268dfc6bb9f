package probe

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/rules/service"
)

// icmpCodes are the codes of "destination unreachable", which is type 3 of ICMP (RFC 792, RFC 1122, RFC 1812)
// and type 1 of ICMPv6 (RFC 4443), and of other errors that end a connection.
func icmpCodes() map[uint8]map[[2]uint8]string {
	return map[uint8]map[[2]uint8]string{
		unix.SO_EE_ORIGIN_ICMP: {
			{3, 0}: "network unreachable", {3, 1}: "host unreachable", {3, 2}: "protocol unreachable",
			{3, 3}: "port unreachable", {3, 4}: "fragmentation needed", {3, 9}: "network prohibited",
			{3, 10}: "host prohibited", {3, 13}: "administratively prohibited", {11, 0}: "too many hops",
		},
		unix.SO_EE_ORIGIN_ICMP6: {
			{1, 0}: "no route", {1, 1}: "administratively prohibited", {1, 3}: "address unreachable",
			{1, 4}: "port unreachable", {1, 5}: "source address prohibited", {1, 6}: "route rejected",
			{3, 0}: "too many hops", {4, 1}: "protocol unreachable",
		},
	}
}

// errorQueue reads the ICMP error that the kernel keeps for the socket, if there is one. The sockets of TCP
// have it since Linux 5.14; before that there is only the error of the socket.
func (a *attempt) errorQueue() {
	control := make([]byte, 512)
	_, n, _, _, err := unix.Recvmsg(a.fd, make([]byte, 2048), control, unix.MSG_ERRQUEUE)
	if err != nil {
		return
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil {
		return
	}
	for _, m := range messages {
		isError := m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_RECVERR ||
			m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_RECVERR
		if isError && len(m.Data) >= int(unsafe.Sizeof(unix.SockExtendedErr{})) {
			a.icmp(*(*unix.SockExtendedErr)(unsafe.Pointer(&m.Data[0])), m.Data)
		}
	}
}

// icmp records an ICMP error. Behind the error the kernel puts the address of the sender.
func (a *attempt) icmp(e unix.SockExtendedErr, data []byte) {
	if e.Origin != unix.SO_EE_ORIGIN_ICMP && e.Origin != unix.SO_EE_ORIGIN_ICMP6 {
		return // an error of this node: the socket has it too
	}
	name := "ICMP"
	if e.Origin == unix.SO_EE_ORIGIN_ICMP6 {
		name = "ICMPv6"
	}
	a.result.By = fmt.Sprintf("%s type %d code %d", name, e.Type, e.Code)
	if word, ok := icmpCodes()[e.Origin][[2]uint8{e.Type, e.Code}]; ok {
		a.result.By += " (" + word + ")"
	}
	// Connection tracking gives an error of the endpoint the address of the frontend.
	switch from, ok := offender(data[unsafe.Sizeof(e):]); {
	case ok && from == a.to.Addr:
		a.result.By += " from the target itself"
	case ok:
		a.result.By += " from " + from.String()
	}
	a.result.Result = resultOf(unix.Errno(e.Errno))
}

// offender reads the struct sockaddr of the sender of an ICMP error.
func offender(data []byte) (netip.Addr, bool) {
	switch {
	case len(data) >= unix.SizeofSockaddrInet4 && data[0] == unix.AF_INET:
		return netip.AddrFrom4([4]byte(data[4:8])), true
	case len(data) >= unix.SizeofSockaddrInet6 && data[0] == unix.AF_INET6:
		return netip.AddrFrom16([16]byte(data[8:24])), true
	}
	return netip.Addr{}, false
}

// failed records an error of the socket, and reports whether it is an answer of the network.
func (a *attempt) failed(err error) bool {
	if a.result.Result = resultOf(err); a.result.Result == "" {
		return false
	}
	if a.to.Protocol == service.TCP && errors.Is(err, unix.ECONNREFUSED) {
		a.result.By = "RST"
		return true
	}
	a.result.By = "the network stack of this node (" + err.Error() + ")"
	return true
}

// resultOf returns what an error of a socket means, and "" if it does not come from the network.
func resultOf(err error) string {
	switch {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EPROTO),
		errors.Is(err, unix.ECONNRESET):
		return Refused
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES),
		errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.EMSGSIZE),
		errors.Is(err, unix.EINVAL): // of a route of the type blackhole
		return Unreachable
	}
	return ""
}
