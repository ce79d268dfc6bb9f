// Package fakekernel is a kernel in memory: it holds nftproxy's tables and refuses a change that nf_tables
// refuses.
//
// It lets tests drive package rules and the reconciler through thousands of random rulesets within seconds
// and without privilege, and it produces errors and changes by other processes at the moment a test wants
// them. A test of this package sends each change that it refuses to the real kernel as well and compares the
// error.
//
// A [Kernel] has the methods of *kernel.Conn that the reconciler uses. It applies a rules.Delta as a whole or
// not at all, and its errors are those of kernel.Conn: a *netlink.Error with the kernel's error number. It
// sees the chains, sets and elements of a Delta; how they are encoded for the kernel is the subject of the
// tests of proxier/kernel. The map affinity has no elements here, because packets add them.
//
// Start reading at [Kernel]. refusal.go says what it refuses, and where it is stricter than the kernel.
package fakekernel
