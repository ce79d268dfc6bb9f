// Package lab creates a small Kubernetes cluster in network namespaces and sends real TCP, UDP and SCTP
// requests through the rules of one of its nodes. SCTP comes from sockets if the module sctp of the kernel is
// loaded, and otherwise from packets that the lab makes itself.
//
// Whether a ruleset is right shows in the packets that pass it. A lab answers that on any machine: it needs
// the kernel and no other program, and no root where the kernel allows user namespaces. It never touches the
// network of the host: all machines are namespaces, which end with the process.
//
// All machines are on one switched network, 192.0.2.0/24 and 2001:db8::/64:
//
//	node      192.0.2.1    2001:db8::1    the node under test, node-a; host-pod is a pod in its host network
//	  pod-a   10.244.1.11  fd00:10:244:1::11
//	  pod-b   10.244.1.12  fd00:10:244:1::12
//	node-b    192.0.2.2    2001:db8::2    another node
//	  pod-c   10.244.2.11  fd00:10:244:2::11
//	  pod-d   10.244.2.12  fd00:10:244:2::12
//	client    192.0.2.100  2001:db8::100  outside of the cluster
//	client-2  192.0.2.101  2001:db8::101  the same machine with another address
//
// The client sends packets for 10.96.0.0/16, 198.51.100.0/24, 203.0.113.0/24, fd00:10:96::/112 and
// 2001:db8:1::/64 to the node under test; node-b does so for the external ranges among them. The client has
// no route to pods, and only the node under test knows ClusterIPs: a request that it does not translate gets
// no answer.
//
// The TestMain of a package that uses the lab is [Main]. A test makes a lab with [New], starts servers with
// [Lab.Serve] or [Lab.ServeEndpoints], and sends requests with [Lab.Check], which compares their outcomes
// with a [Row], or [Lab.Steady]. Code that works in the network namespace of its process runs in a child
// process: [Alone] starts it, and with Options.Here its namespace is the node under test.
//
// Start reading at [New] and [Lab.Check]; topology.go has the devices, addresses and routes.
package lab
