// Package conntrack does the work of a proxy in the kernel's connection tracking: it deletes flows to
// endpoints that no longer exist, counts connections that are open, and sets kube-proxy's sysctls.
//
// Rules decide only once where a flow goes, with its first packet; later packets follow the flow's entry in
// the connection tracking table. TCP needs this, and so does SCTP. But a UDP flow, or an SCTP association
// that retransmissions keep alive, can continue forever to an endpoint that does not exist, so the entry must
// be deleted together with the endpoint. As in kube-proxy, a change of a Service alone is not a reason to
// delete entries: their flows continue as TCP connections do. drain.go has what happens to flows while their
// endpoint terminates.
//
// All of these work in the network namespace of the calling thread, hold no state, and are safe to repeat
// after an error. proxier/netlink has the socket and the encoding of messages.
//
// Start reading at [Clean], [OpenAt] and [Sysctls.Set].
package conntrack
