// Package spec says what a service proxy has to do with a packet: from Services, EndpointSlices,
// ServiceCIDRs, a Node and a configuration to the set of outcomes that the packet may have.
//
// It is written from the documentation of the Kubernetes API and from KEPs
// (https://github.com/kubernetes/enhancements, "KEP-" and a number), and each rule names its source. Where
// these leave a choice, the rule says that it is nftproxy's, with the document that has it. The package
// shares no code with the rest of nftproxy, and knows nothing of chains, maps or slots: internal/proof
// compares it with what the kernel has, so a mistake that both make must be made twice.
//
// Start reading at [Cluster.Allowed]; frontend.go says who has an address and port, endpoint.go who serves
// it, and object.go which parts of an object count.
package spec
