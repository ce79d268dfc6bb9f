// Package top is `nftproxy top`: the ports of Services on this node in a table that refreshes, in a terminal.
//
// It is a view of [status.Report], which the daemon makes, sorts and filters, and which has the rows of one
// screen. The terminal is set up with golang.org/x/term, which the program has anyway; docs/design.md compares
// what larger libraries cost the daemon. What is drawn are a few control sequences that all terminals of today
// know, because over kubectl exec nobody says which one it is.
//
// Start reading at [Watch]; view.go has what is on the screen.
package top
