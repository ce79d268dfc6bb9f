// Package proof compares what the kernel does to packets with what Kubernetes says it has to do, for every
// packet.
//
// A service proxy decides by a few fields of a packet, which it compares with constants. The constants of the
// rules and those of the specification cut the space of all headers into classes, in which all packets have
// the same fate. Their number is finite, so all of them can be visited: the tests here program the cases
// of testdata into the kernel, read back what it has, run one packet of each class through it (package
// bytecode), and compare the outcomes with those that the objects allow (package spec).
//
// TestKubeProxy does the same with the tables of kube-proxy, which package capture has recorded in testdata
// (package recording).
//
// The tests visit a sample of the classes of each case. With -all, as in `make proof`, they visit all.
//
// Start reading at TestExhaustion; classes_test.go cuts the space.
package proof
