// Package nftables is the language that nftproxy writes its rules in: statements, rules, chains, sets and elements,
// each with its nft text and, for statements, the kernel's expressions.
//
// The language has some twenty statements, so that a rule can be printed, programmed, read back and compared without
// the nft binary. A [Statement] is the one source of its text and of its bytecode: both stand next to each other, and
// the kernel tests compare the bytecode with what nft makes of the text. Sets are of a few fixed kinds ([SetKind])
// with fixed layouts ([Schema]); an [Element] has the kernel's own layout, so that comparing two is comparing bytes.
//
// The package is pure: it does no I/O. proxier/kernel writes its values to the kernel and reads them back.
//
// Start reading at [Statement], then [SetKind].
package nftables
