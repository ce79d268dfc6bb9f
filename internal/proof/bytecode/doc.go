// Package bytecode executes nftables rules as the kernel dumps them over netlink, on one packet.
//
// It knows nothing of the rules that nftproxy means to write: it reads expressions, registers, sets and
// verdicts, as nf_tables in the kernel does, and so finds what a mistake on the way from a Service to the
// kernel would do to a packet. It runs the tables of kube-proxy as well. What it does not know, it refuses by
// name when it reads the tables, or when a packet meets it.
//
// Where the rules choose (numgen) or remember (dynamic sets), a packet has a set of outcomes. [Machine.Run]
// finds them by running the packet again for each choice.
//
// Start reading at [Read], then [Machine.Run]. expression.go has the expressions; hook.go has the order in
// which a packet meets the chains of all tables; cuts.go has the constants that distinguish packets.
package bytecode
