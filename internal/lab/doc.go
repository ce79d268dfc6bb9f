// Package lab lays out a small Kubernetes cluster in network namespaces, so that kernel tests and the demo can
// send real TCP, UDP and SCTP requests through the rules of one node. It needs no external program, and no root
// where the kernel allows user namespaces.
//
// All machines are on one switched network, 192.0.2.0/24 and 2001:db8::/64:
//
//	node      192.0.2.1    2001:db8::1    the node under test, called node-a; host-pod is a pod in its host network
//	  pod-a   10.244.1.11  fd00:10:244:1::11
//	  pod-b   10.244.1.12  fd00:10:244:1::12
//	node-b    192.0.2.2    2001:db8::2    another node
//	  pod-c   10.244.2.11  fd00:10:244:2::11
//	  pod-d   10.244.2.12  fd00:10:244:2::12
//	client    192.0.2.100  2001:db8::100  outside of the cluster
//	client-2  192.0.2.101  2001:db8::101  the same machine with another address
//
// The client sends what is for 10.96.0.0/16, 198.51.100.0/24, 203.0.113.0/24, fd00:10:96::/112 and 2001:db8:1::/64
// to the node under test, node-b only what is for the external ranges among them. The client has no route to pods,
// and nobody but the node under test knows ClusterIPs: what that node does not translate gets no answer.
package lab
