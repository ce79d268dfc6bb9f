// Package kernel holds nftproxy's two tables in the kernel: it reads what is there, compares it with a ruleset, applies
// the difference in one transaction, and notices when another process changes the tables.
//
// The kernel's state is the only state: nothing is stored on disk, so a new process continues where the old one
// stopped, and a repair is the same operation as a change. Tables are owned where the kernel supports it (Linux 6.9),
// so that no other process can change them by accident.
//
// A [Conn] belongs to one goroutine. Its methods return errors that name the element or rule that the kernel refused;
// after an error nothing was changed, or [netlink.ErrUnknownOutcome] says that this is not known.
//
// Start reading at [Conn.Diff] and [Conn.Apply]. set.go and element.go have the kernel's layouts, probe.go finds
// out what a kernel lacks.
package kernel
