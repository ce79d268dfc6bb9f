// Package memory holds the tests of how much memory nftproxy needs in a pod: the daemon runs in a cgroup with
// a limit, as in a container, and must program a large cluster without being killed. What the kernel keeps
// for the process, such as the elements of its maps, is charged to the cgroup as well.
//
// Start reading at TestLimit.
package memory
