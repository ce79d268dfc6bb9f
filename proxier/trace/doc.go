// Package trace follows packets to one address and port through all nftables rules of this node, whoever
// wrote them.
//
// The kernel reports each rule that a packet with the mark nftrace meets. A table of our own, before the
// others, gives the mark to few packets: those to one address, protocol and port, at most 10 a second. Two
// chains at the other end say that a packet got through. The reports come by a multicast group of their own
// (NFNLGRP_NFTRACE). Nobody listens for changes of the ruleset (NFNLGRP_NFTABLES), as nft monitor does, so
// transactions do not become slower: docs/troubleshooting.md has the figures.
//
// Nothing stays behind. On Linux 5.12 and later the table belongs to the socket that made it, and the kernel
// deletes it when the socket is closed, also after SIGKILL. On older kernels the element that selects the
// packets has a timeout, so that tracing ends by itself, and the next trace or nftproxy cleanup removes the
// empty table.
//
// google/nftables does not read these reports, so event.go does. Its types for expressions are what text.go
// reads rules with.
//
// Start reading at [Start], then [Packet].
package trace
