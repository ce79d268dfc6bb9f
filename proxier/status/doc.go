// Package status is the state of nftproxy on a node, for a person: a [Report] with a summary, the problems, and
// a row for each port of a Service. The page /status and `nftproxy top` are two views of it.
//
// The package holds the model and its views; the daemon fills it in. Start reading at [Report].
package status
