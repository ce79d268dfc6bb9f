package conntrack

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is how full the table of connection tracking is. New connections are dropped when it is full.
type Usage struct {
	Flows, Most int
}

// ReadUsage returns the usage in the network namespace of the calling thread. netDir is /proc/sys/net, or where
// it is mounted.
func ReadUsage(netDir string) (u Usage, err error) {
	for name, to := range map[string]*int{"nf_conntrack_count": &u.Flows, "nf_conntrack_max": &u.Most} {
		text, err := os.ReadFile(filepath.Join(netDir, "netfilter", name))
		if err != nil {
			return u, fmt.Errorf("read usage of connection tracking: %w", err)
		}
		if *to, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return u, fmt.Errorf("read usage of connection tracking: %s: %w", name, err)
		}
	}
	return u, nil
}

// Full reports whether the kernel drops new connections. It makes room only by dropping flows that have seen
// packets in one direction.
func (u Usage) Full() bool { return u.Most > 0 && u.Flows >= u.Most }

// NearlyFull reports whether less than one part in twenty is free.
func (u Usage) NearlyFull() bool { return u.Most > 0 && u.Flows > u.Most-u.Most/20 }
