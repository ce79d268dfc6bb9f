// Package desired builds the ruleset that a node should have, from the configuration, the node and the
// cluster's objects.
//
// The daemon, --dry-run, diff and check share it, so that all of them arrive at the same ruleset. It does not
// access the kernel: the caller passes the addresses of the host and the slots that endpoints already have. A
// part of an object that cannot be programmed is left out and reported as a [Problem].
//
// Start reading at [Builder], which keeps a ruleset up to date; [FromManifests] builds one from manifests on
// disk.
package desired
