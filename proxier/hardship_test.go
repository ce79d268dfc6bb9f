package proxier

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// hardship is something that happens to a process on a node.
type hardship struct {
	name   string
	script string // of sh, before it becomes the program
	during func(t *testing.T, p *process)
	after  func(t *testing.T, p *process)
	errors bool // the log may have errors about it
}

// start runs the program in user and network namespaces of its own.
func (h hardship) start(t *testing.T, program string, args ...string) *process {
	t.Helper()
	script := h.script + "\nexec \"$0\" \"$@\""
	p := &process{cmd: exec.Command("sh", append([]string{"-euc", script, program}, args...)...),
		exited: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	own := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL,
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, UidMappings: own, GidMappings: own}
	p.run(t, func() error { return nil })
	return p
}

// TestHardships runs the program while little of something is left on the node, or the program does not run
// for a while: it programs the manifests, follows their changes and ends when it is asked to, without an
// error in its log.
func TestHardships(t *testing.T) {
	program := filepath.Join(scratch(t), "nftproxy")
	signal := func(s unix.Signal) func(*testing.T, *process) {
		return func(t *testing.T, p *process) {
			if err := p.cmd.Process.Signal(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, h := range []hardship{
		{name: "user namespace"},
		// It has more files open than that, and cannot read a manifest.
		{name: "14 open files", during: limitFiles(14), after: func(t *testing.T, p *process) {
			p.untilLogged(t, "too many open files")
			limitFiles(1024)(t, p)
		}, errors: true},
		{name: "no inotify instance", script: "echo 0 > /proc/sys/user/max_inotify_instances"},
		{name: "no inotify watch", script: "echo 0 > /proc/sys/user/max_inotify_watches"},
		{name: "a twentieth of a CPU", during: throttle},
		// The end-to-end test stops it for a minute, which is longer than the timeouts of connections to the
		// API server. Without one nothing depends on how long it is.
		{name: "stopped", during: signal(unix.SIGSTOP), after: func(t *testing.T, p *process) {
			time.Sleep(3 * time.Second)
			signal(unix.SIGCONT)(t, p)
		}},
	} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			h.follow(t, program)
		})
	}
}

// limitFiles sets how many files a process may have open.
func limitFiles(n uint64) func(*testing.T, *process) {
	return func(t *testing.T, p *process) {
		t.Helper()
		limit := &unix.Rlimit{Cur: n, Max: 1024}
		if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_NOFILE, limit, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// untilLogged waits until the process has logged a text.
func (p *process) untilLogged(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.log(), text); {
		if time.Now().After(deadline) {
			t.Fatalf("%q is not in the log:\n%s", text, p.log())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// follow runs the daemon and changes the manifests.
func (h hardship) follow(t *testing.T, program string) {
	d := &daemon{dir: webManifests(t, podA, podC)}
	p := h.start(t, program, "--source="+d.dir, "--hostname-override=node-a",
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56", "--metrics-bind-address=0.0.0.0:10249")
	ns, err := lab.NamespaceOf(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if h.after == nil && h.during != nil {
		h.during(t, p) // from the start
	}
	p.programmedWithin(t, ns, d.dir, time.Minute)
	if h.after != nil {
		h.during(t, p)
	}
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podB, podC))
	d.write(t, "dns.yaml", dnsManifest)
	d.write(t, "dns-endpoints.yaml", dnsEndpoints(podB))
	if h.after != nil {
		h.after(t, p)
	}
	p.programmedWithin(t, ns, d.dir, time.Minute)
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podD))
	p.programmedWithin(t, ns, d.dir, time.Minute)
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	lines := regexp.MustCompile(`(?m)^[EF]\d.*`).FindAllString(p.log(), -1)
	if len(lines) > 0 && !h.errors {
		t.Errorf("errors in the log:\n%s", strings.Join(lines, "\n"))
	}
	if polls := strings.Count(p.log(), "Polling files"); polls > 0 != strings.Contains(h.name, "inotify") ||
		polls > 1 {
		t.Errorf("%d lines say that files are polled:\n%s", polls, p.log())
	}
}

// throttle gives a process 5 ms of CPU time in each 100 ms: by a cgroup of version 2 or 1 or, where the test
// may not make one, by stopping and continuing it.
func throttle(t *testing.T, p *process) {
	t.Helper()
	name := fmt.Sprint("nftproxy-test-", os.Getpid())
	for _, version := range []struct {
		dir   string
		files []string // and their contents
	}{
		{"/sys/fs/cgroup/" + name, []string{"cpu.max", "5000 100000"}},
		{"/sys/fs/cgroup/cpu/" + name, []string{"cpu.cfs_period_us", "100000", "cpu.cfs_quota_us", "5000"}},
	} {
		err := cgroup(t, version.dir, p.cmd.Process.Pid, version.files)
		if err == nil {
			return
		}
		t.Logf("no cgroup: %v", err)
	}
	t.Cleanup(stutter(p.cmd.Process, 5*time.Millisecond, 100*time.Millisecond))
}

// cgroup moves a process into a new cgroup, whose files it writes.
func cgroup(t *testing.T, dir string, pid int, files []string) error {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var err error
	files = append(files, "cgroup.procs", fmt.Sprint(pid))
	for ; len(files) > 0 && err == nil; files = files[2:] {
		// Without O_CREATE: a directory that is no cgroup must not get such a file.
		var f *os.File
		if f, err = os.OpenFile(filepath.Join(dir, files[0]), os.O_WRONLY, 0); err == nil {
			_, err = f.WriteString(files[1])
			err = errors.Join(err, f.Close())
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	t.Cleanup(func() {
		stat, _ := os.ReadFile(filepath.Join(dir, "cpu.stat"))
		if !regexp.MustCompile(`nr_throttled [1-9]`).Match(stat) {
			t.Errorf("the process was never throttled:\n%s", stat)
		}
		// The process has ended, but the kernel may need a moment to remove it from the cgroup.
		for range 100 {
			if err = os.Remove(dir); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Error(err)
	})
	return nil
}

// stutter lets a process run for a part of each period until the returned function is called.
func stutter(p *os.Process, part, period time.Duration) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for running := false; ; running = !running {
			s, d := unix.SIGSTOP, period-part
			if running {
				s, d = unix.SIGCONT, part
			}
			_ = p.Signal(s) // it may have ended
			select {
			case <-done:
				_ = p.Signal(unix.SIGCONT)
				return
			case <-time.After(d):
			}
		}
	}()
	return func() { close(done); <-stopped }
}
