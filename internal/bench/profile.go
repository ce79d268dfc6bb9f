package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// profileTime is the duration of a CPU profile.
const profileTime = 5 * time.Second

// profile writes a heap profile of the proxy, or a CPU profile of the next seconds, to a file named after the
// contender, the number of Services and the occasion. Without -profile it does nothing.
func (b *bench) profile(n *node, occasion string, cpu bool) error {
	if !b.options.profile || n.proxy == nil || n.who.name == floorName {
		return nil
	}
	name := fmt.Sprintf("%s-%d-%s", n.who.name, b.cluster.services, occasion)
	path, file := "/debug/pprof/heap", name+".heap.pprof"
	if cpu {
		path = fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(profileTime.Seconds()))
		file = name + ".cpu.pprof"
	}
	var body string
	err := n.lab.Node().Do(func() (err error) {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
			conn, derr := net.Dial("tcp", metricsAddr)
			if derr == nil {
				_ = conn.Close()
				break
			}
			if time.Now().After(deadline) {
				return derr
			}
		}
		body, err = get(metricsAddr, path)
		return err
	})
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.WriteFile(filepath.Join(b.out, file), []byte(body), 0o644)
}
