// Package nftables is the language in which nftproxy writes its rules: statements, rules, chains, sets and
// elements, each with its text in nft's language and, for statements, the kernel's expressions.
//
// The language has about fifteen statements. They are all that nftproxy needs, so it can print, program, read
// back and compare its rules without the nft binary. Each kind of [Statement] has its text and its
// expressions next to each other; the kernel tests compare the expressions with those that nft makes of the
// text. Sets are of a few kinds ([SetKind]) with fixed layouts ([Schema]). An [Element] has the kernel's own
// layout: to compare two elements is to compare bytes.
//
// The package is pure: it does no I/O. proxier/kernel writes its values to the kernel and reads them back.
//
// Start reading at [Statement], then [SetKind].
package nftables
