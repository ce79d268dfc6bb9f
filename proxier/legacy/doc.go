// Package legacy finds what kube-proxy leaves on a node outside nftables, and
// whether a kube-proxy runs: rules of iptables-legacy, virtual servers and the
// interface of IPVS mode. It changes nothing.
//
// All of it is about the network namespace of the calling thread.
package legacy
