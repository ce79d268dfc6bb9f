// Package support makes the archive of `nftproxy support-bundle`: what a maintainer asks for when a node has
// a problem.
//
// The command makes the archive, so that it gets one also when no daemon answers. What only the daemon knows
// it asks for, with [Fetch]. A part that cannot be read does not keep the others out: the index says
// why.
//
// Nothing in the archive is secret: no part reads a credential, and what looks like one is removed from every
// line, because an error in the log may quote what another program said.
//
// Start reading at [Write].
package support
