// Package localhost serves nodePorts on 127.0.0.1 and ::1 by a TCP proxy in user space, as kube-proxy does
// (KEP-6032).
//
// No rule can serve them. A connection to a loopback address has a loopback address as its source, and the
// kernel does not route such packets to a pod. The sysctl route_localnet allows it for IPv4, but opens the
// loopback addresses of the node to its neighbours (CVE-2020-8558), and IPv6 has no such setting. So each
// nodePort has a listener, and each connection a second one to an endpoint, whose client is the node.
//
// The daemon gives [Proxy.Sync] all nodePorts after each commit. A nodePort without endpoints has no
// listener, so the kernel refuses its clients. Connections stay with their endpoint until one side ends them,
// also if the nodePort or the endpoint goes away, as connections that the rules translate do; only the end of
// the process ends them.
//
// Start reading at [Proxy]. listener.go chooses endpoints, relay.go copies.
package localhost
