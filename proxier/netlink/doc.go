// Package netlink is the transport to the kernel's netfilter subsystems: a socket, a writer of messages,
// batches of nftables messages that are one transaction, dumps, and errors with the kernel's own words.
// proxier/kernel and proxier/takeover use it for nftables, proxier/conntrack for connection tracking.
//
// It is our own code because this path decides what a change costs. A batch is one slice and one write,
// whatever its size (44 MB at 500,000 elements). A dump is read into one buffer, without a copy or an
// allocation for each message. docs/design.md compares the figures with those of google/nftables' transport.
//
// A [Socket], and so a [Conn], belongs to one goroutine and to the network namespace of the thread that
// opened it. The kernel processes a request inside the system call that sends it, and the next part of a dump
// inside the one that reads it. So when a call returns the answer is in the queue, and nothing here ever
// waits, except a [Listener] for what the kernel reports by itself.
//
// Start reading at [Batch], then [Conn.Commit] and [Conn.Dump].
package netlink
