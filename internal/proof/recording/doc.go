// Package recording keeps the tables of a network namespace in a file, as the messages that the kernel
// answers a dump with, and answers the same dumps from the file.
//
// The file is a stream of netlink messages in the byte order of the host, compressed with gzip. It has no
// handles, and chains, sets and elements are in the order of their names, so that a new recording of the same
// tables is the same file, except for the numbers of anonymous sets, which are those of the kernel.
//
// Start reading at [Write] and [Open].
package recording
