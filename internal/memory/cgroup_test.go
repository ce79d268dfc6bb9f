package memory

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cgroup is a memory cgroup of its own below the root of the hierarchy, of version 1 or 2. Where none can be
// made, because this process is not root or may not write there, the daemon gets the limit by GOMEMLIMIT, and
// the peak is that of its resident memory: what the kernel charges to a cgroup does not show then.
type cgroup struct {
	dir   string // "": there is none
	limit int
	peaks string // the file with the peak
}

// newCgroup creates a cgroup with a limit in bytes.
func newCgroup(t *testing.T, limit int) *cgroup {
	t.Helper()
	c := &cgroup{limit: limit, peaks: "memory.peak"}
	root, limits := "/sys/fs/cgroup", "memory.max"
	var err error
	if _, none := os.Stat(root + "/memory/memory.limit_in_bytes"); none == nil { // version 1
		root, limits, c.peaks = root+"/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"
	} else {
		err = os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory"), 0)
	}
	dir := filepath.Join(root, fmt.Sprintf("nftproxy-memory-%d-%d", os.Getpid(), time.Now().UnixNano()))
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err != nil {
		t.Logf("no cgroup can be made here, so this shows resident memory without the kernel's: %v", err)
		return c
	}
	c.dir = dir
	t.Cleanup(func() { c.remove(t) })
	must(t, os.WriteFile(filepath.Join(dir, limits), []byte(strconv.Itoa(limit)), 0))
	return c
}

// remove removes the cgroup, for which the kernel needs a moment after the last process.
func (c *cgroup) remove(t *testing.T) {
	var err error
	for range 250 {
		if err = os.Remove(c.dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("remove cgroup: %v", err)
}

// wrap makes a command start in the cgroup.
func (c *cgroup) wrap(cmd *exec.Cmd) {
	if c.dir == "" {
		cmd.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", c.limit*8/10))
		return
	}
	script := `echo $$ > "$0" && exec "$@"`
	args := []string{"sh", "-c", script, filepath.Join(c.dir, "cgroup.procs"), cmd.Path}
	cmd.Path, cmd.Args = "/bin/sh", append(args, cmd.Args[1:]...)
}

// peak returns the most bytes that the cgroup was charged with, those in the kernel included. The command has
// ended.
func (c *cgroup) peak(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if c.dir == "" {
		return int(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss) << 10
	}
	data, err := os.ReadFile(filepath.Join(c.dir, c.peaks))
	must(t, err)
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	must(t, err)
	return n
}
