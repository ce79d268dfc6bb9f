package conntrack

import (
	"os"
	"strconv"
	"strings"
)

// Usage is how full the table of connection tracking is, in a network namespace.
type Usage struct {
	Count int // flows in the table
	Max   int // flows that it may have; 0 where it is not in use yet
}

// ReadUsage returns the usage in the network namespace of the calling thread.
func ReadUsage() Usage {
	const dir = "/proc/sys/net/netfilter/"
	return Usage{Count: readNumber(dir + "nf_conntrack_count"), Max: readNumber(dir + "nf_conntrack_max")}
}

// Full reports whether the kernel drops new connections. It makes room only by dropping flows that have seen
// packets in one direction.
func (u Usage) Full() bool { return u.Max > 0 && u.Count >= u.Max }

// NearlyFull reports whether more than 90 % of the table are in use.
func (u Usage) NearlyFull() bool { return u.Count*10 > u.Max*9 }

// readNumber returns the number in a file, and 0 if the file does not exist or has no number.
func readNumber(path string) int {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0
	}
	return n
}
