// Package kernel manages nftproxy's two tables in the kernel: it reads them, compares them with a ruleset,
// applies the difference in one transaction, and notices when another process changes them.
//
// The kernel's state is the only state: nothing is stored on disk, so a new process continues where the old
// one stopped, and a repair is the same operation as a change. Where the kernel supports it (Linux 6.9) the
// process owns its tables, so that no other process can change them by accident.
//
// A [Conn] belongs to one goroutine and to the network namespace of the thread that opened it. Errors name
// the element or rule that the kernel refused. After an error of [Conn.Apply] the tables are unchanged,
// unless it is [netlink.ErrUnknownOutcome].
//
// Start reading at [Conn.Diff] and [Conn.Apply]. set.go and element.go have the kernel's layouts, probe.go
// finds the features that a kernel lacks, and tables.go lists the tables of all programs.
package kernel
