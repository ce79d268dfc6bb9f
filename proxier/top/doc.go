// Package top is `nftproxy top`: the ports of Services on this node in a table that refreshes, in a terminal.
//
// It is a view of [status.Report], which the daemon makes, sorts and filters, so that a table of a screen costs
// the same with 50,000 Services as with ten. The terminal is set up with golang.org/x/term, which the program
// has anyway; docs/design.md compares what larger libraries cost the daemon. What is drawn are a few control
// sequences that every terminal knows since the VT220, because over kubectl exec nobody says which one it is.
//
// Start reading at [Watch]; view.go has what is on the screen.
package top
