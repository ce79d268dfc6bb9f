// Package rules says what nftproxy wants in the kernel: it turns Services with
// their endpoints into nftables chains, sets and elements, finds the difference
// to what is programmed, and prints both as nft text.
//
// It is pure: no kernel, no Kubernetes client, no clock, no goroutine. The same
// input gives the same bytes.
//
//   - [Compile] turns one [Service] into [Compiled]: the frontends it wants.
//   - [Ruleset] holds what is desired, by Service, and collects what changes.
//   - [Diff] compares it with [Programmed], what was read from the kernel.
//   - [Delta] is the outcome of both: one transaction.
//   - [Statement] is the one source of truth for a rule; it is written as text
//     here and as netlink in proxier/nft.
package rules
