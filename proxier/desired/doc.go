// Package desired makes the ruleset that a node should have: it puts the configuration, the node and the cluster's
// objects together and compiles each Service.
//
// The daemon, --dry-run, diff and check share it, so that all of them mean the same ruleset. It reads no kernel; the
// host's addresses and the slots that endpoints already have are given to it.
//
// Start reading at [Builder]; [FromManifests] makes one for manifests on disk.
package desired
