// Package explain answers why a connection to a Service goes where it goes on this node: `nftproxy explain`.
//
// The answer comes from the rules themselves: [rules/interpreter] evaluates them on the first packet of the
// connection. What is left out and why comes from the compiler's own functions ([rules.Reasons]). This package
// only finds the frontend and the client that the question is about, and puts the decisions into words.
//
// Start reading at [Explain]. [Collect] gathers what it needs from the builder of a ruleset: that of manifests,
// or that of the daemon, whose goroutine calls it. daemon.go has the question to the daemon.
package explain
