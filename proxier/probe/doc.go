// Package probe sends the first packet of a real connection to a Service, and tells what comes back.
//
// Rules say where a connection should go; only a packet shows whether it arrives. A probe is what the kernel
// itself sends for a program on this node: a SYN, a datagram, or an INIT of SCTP. Sockets are used directly,
// because they have more to tell than package net passes on: with IP_RECVERR (ip(7)) the kernel keeps the
// ICMP error and who sent it. Connection tracking knows which endpoint got the packet, whether it answers or
// not, and whether the packet has left the node at all.
//
// Start reading at [Send].
package probe
