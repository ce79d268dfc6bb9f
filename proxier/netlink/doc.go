// Package netlink is the transport to the kernel's netfilter subsystems: a socket, a writer of messages, batches of
// nftables messages that are one transaction, dumps, and errors with the kernel's own words.
//
// It is our own code because this path decides what a change costs. A batch is one slice and one write, whatever its
// size (44 MB at 500,000 elements); a dump is read into one buffer, without a copy or an allocation for each message.
// docs/design.md has the figures beside google/nftables' transport. Conntrack uses the same socket and writer.
//
// A [Socket] and a [Conn] belong to one goroutine. The kernel works on a request inside the system call that sends
// it, so when that call returns the answer is queued, and nothing here ever waits.
//
// Start reading at [Batch], then [Conn.Commit] and [Conn.Dump].
package netlink
