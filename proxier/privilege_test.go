package proxier

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// confinement limits what a process may do.
type confinement struct {
	name string
	caps []uintptr      // the only capabilities of the process
	uid  int            // other than 0: in user and network namespaces of its own
	ns   *lab.Namespace // with uid 0: the network namespace
	root string         // the only file system, besides /proc; read-only
	// sysctls mounts the sysctls of the network namespace at /host/proc/sys/net, where they can be written.
	sysctls bool
}

// process is a confined process.
type process struct {
	cmd    *exec.Cmd
	exited chan error

	mu     sync.Mutex
	output bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// start starts the program /nftproxy of the root, with an empty environment.
func (c confinement) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command("/nftproxy", args...), exited: make(chan error, 1)}
	p.cmd.Err = nil // the path is one within the root
	p.cmd.Env, p.cmd.Dir = []string{}, "/"
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: c.root, Pdeathsig: unix.SIGKILL, AmbientCaps: c.caps}
	if c.uid != 0 {
		p.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNET
		p.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: c.uid, HostID: 0, Size: 1}}
		p.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: c.uid, HostID: 0, Size: 1}}
	}
	p.run(t, c.enter)
	return p
}

// run starts the command on a thread of its own, which enters namespaces first. The process ends with the
// test.
func (p *process) run(t *testing.T, enter func() error) {
	t.Helper()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		err := enter()
		if err == nil {
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			p.exited <- p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
}

// enter confines the calling thread, for the processes that it starts.
func (c confinement) enter() error {
	if c.ns != nil {
		if err := unix.Setns(c.ns.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount(c.root, c.root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	proc := filepath.Join(c.root, "proc")
	if err := unix.Mount("/proc", proc, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	readOnly := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(-1, c.root, unix.AT_RECURSIVE, readOnly); err != nil {
		return fmt.Errorf("make mounts read-only: %w", err)
	}
	if c.sysctls {
		dir := filepath.Join(c.root, "host/proc/sys/net")
		if err := unix.Mount("/proc/sys/net", dir, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount sysctls: %w", err)
		}
	}
	for i := uintptr(0); c.uid == 0; i++ { // a user namespace has a bounding set of its own
		if i == unix.CAP_NET_ADMIN && len(c.caps) > 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, i, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // that was the last one
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", i, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return nil
}

// status returns a line of /proc/PID/status.
func (p *process) status(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(data), "\n"+name+":\t")
	line, _, _ = strings.Cut(line, "\n")
	return line
}

// wait waits for the process to end.
func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.exited:
		return err
	case <-time.After(10 * time.Second):
		t.Fatalf("the process does not end:\n%s", p.log())
		return nil
	}
}

// scratch returns a directory with the program, and with nothing else that it could use.
func scratch(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o",
		filepath.Join(root, "nftproxy"), "../cmd/nftproxy")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for _, dir := range []string{"proc", "manifests", "host/proc/sys/net"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// untilProgrammed waits until the kernel has in a network namespace what the manifests mean.
func (p *process) untilProgrammed(t *testing.T, ns *lab.Namespace, manifests string) {
	t.Helper()
	p.programmedWithin(t, ns, manifests, 10*time.Second)
}

func (p *process) programmedWithin(t *testing.T, ns *lab.Namespace, manifests string, limit time.Duration) {
	t.Helper()
	conn := dial(t, ns, kernel.Options{Own: true})
	build, err := desired.FromManifests(configtest.Case(t, "", manifests), nil, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		d, err := conn.Diff(service.Families(), build)
		if err == nil && d.Size() == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not programmed: %v, it lacks %+v:\n%s", err, d, p.log())
		}
	}
}

// dnsManifest is a Service for which the daemon deletes flows and expires clients.
const dnsManifest = `
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: default}
spec:
  type: NodePort
  sessionAffinity: ClientIP
  clusterIP: 10.96.0.53
  ports: [{protocol: UDP, port: 53, nodePort: 30053}]
`

func dnsEndpoints(pods ...string) string {
	return strings.Replace(endpointsManifest("dns", pods...), "port: 8080", "protocol: UDP, port: 53", 1)
}

// complaint matches the lines of a log about something that is not allowed. Lines about settings of the host
// are expected: those are files in /proc, which cannot be written.
var (
	complaint = regexp.MustCompile(
		`(?im)^[EF]\d.*|^.*(not permitted|permission denied|not found|no such file|read-only).*$`)
	expected = regexp.MustCompile(`^I.*"(Failed to set conntrack sysctl|Failed to set oomScoreAdj)"`)
)

func checkLog(t *testing.T, log string) {
	t.Helper()
	for _, line := range complaint.FindAllString(log, -1) {
		if !expected.MatchString(line) {
			t.Errorf("in the log: %s", line)
		}
	}
}

// TestPrivileges runs the program with CAP_NET_ADMIN and nothing else: no other capability, no file that can
// be written, no other program, no environment; as root and as another user. It programs and follows the
// manifests, and leaves the rules when it ends.
func TestPrivileges(t *testing.T) {
	root := scratch(t)
	ns := lab.TestNamespace(t)
	netAdmin := []uintptr{unix.CAP_NET_ADMIN}
	for _, c := range []confinement{
		{name: "root", caps: netAdmin, ns: ns, root: root},
		{name: "another user", caps: netAdmin, uid: 65532, root: root},
	} {
		t.Run(c.name, func(t *testing.T) { c.follow(t) })
	}
	t.Run("cleanup", func(t *testing.T) {
		p := confinement{caps: netAdmin, ns: ns, root: root}.start(t, "cleanup")
		if err := p.wait(t); err != nil || !strings.Contains(p.log(), "removed table ip6 nftproxy") {
			t.Errorf("%v: %s", err, p.log())
		}
		if listing := nftIn(t, ns, "", "list", "ruleset"); strings.Contains(listing, "nftproxy") {
			t.Errorf("left over:\n%s", listing)
		}
	})
	needed := netlink.ErrPermission.Error()
	t.Run("nothing", func(t *testing.T) {
		p := confinement{ns: ns, root: root}.start(t, "--source=/manifests", "--hostname-override=node-a")
		var exit *exec.ExitError
		if err := p.wait(t); !errors.As(err, &exit) || exit.ExitCode() != 2 ||
			!strings.Contains(p.log(), needed) {
			t.Errorf("%v, %s; want exit status 2 and %q", err, p.log(), needed)
		}
	})
}

// TestCleanupNeedsPrivileges runs cleanup without a capability, with and without tables: it fails, names the
// capability that it needs, and does not claim that there is nothing to remove.
func TestCleanupNeedsPrivileges(t *testing.T) {
	root := scratch(t)
	empty, programmed := lab.TestNamespace(t), lab.TestNamespace(t)
	nftIn(t, programmed, "", "add", "table", "ip", "nftproxy")
	for _, c := range []confinement{
		{name: "without tables", ns: empty, root: root},
		{name: "with tables", ns: programmed, root: root},
	} {
		for _, command := range []string{"cleanup", "--cleanup"} {
			t.Run(c.name+" "+command, func(t *testing.T) {
				p := c.start(t, command)
				var exit *exec.ExitError
				if err := p.wait(t); !errors.As(err, &exit) || exit.ExitCode() != 2 {
					t.Errorf("%v, want exit status 2", err)
				}
				log := p.log()
				if !strings.Contains(log, "CAP_NET_ADMIN") || strings.Contains(log, "remove") {
					t.Errorf("the output lacks CAP_NET_ADMIN, or says that something was removed:\n%s", log)
				}
			})
		}
	}
	listing := nftIn(t, programmed, "", "list", "ruleset")
	if !strings.Contains(listing, "table ip nftproxy") {
		t.Errorf("the table is gone:\n%s", listing)
	}
	p := confinement{caps: []uintptr{unix.CAP_NET_ADMIN}, ns: empty, root: root}.start(t, "cleanup")
	if err := p.wait(t); err != nil || strings.TrimSpace(p.log()) != "nothing to remove" {
		t.Errorf("with CAP_NET_ADMIN and without tables: %v, %q", err, p.log())
	}
}

// follow runs the daemon and changes the manifests.
func (c confinement) follow(t *testing.T) {
	d := &daemon{dir: filepath.Join(c.root, "manifests")}
	d.write(t, "node.yaml", nodeManifest)
	d.write(t, "web.yaml", webManifest)
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podC))
	d.write(t, "dns.yaml", dnsManifest)
	d.write(t, "dns-endpoints.yaml", dnsEndpoints(podA, podB))
	p := c.start(t, "--source=/manifests", "--hostname-override=node-a",
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56",
		"--metrics-bind-address=0.0.0.0:10249")
	checkStatus(t, p, c)
	ns, err := lab.NamespaceOf(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	p.untilProgrammed(t, ns, d.dir)
	d.write(t, "dns-endpoints.yaml", dnsEndpoints(podB))
	d.write(t, "web-endpoints.yaml", endpointsManifest("web", podA, podC, podD))
	p.untilProgrammed(t, ns, d.dir)
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	p.untilProgrammed(t, ns, d.dir) // the rules stay
	checkLog(t, p.log())
}

// checkStatus fails unless the process is confined.
func checkStatus(t *testing.T, p *process, c confinement) {
	t.Helper()
	const netAdmin = "0000000000001000"
	for _, name := range []string{"CapEff", "CapPrm"} {
		if got := p.status(t, name); got != netAdmin {
			t.Errorf("%s is %s, want %s", name, got, netAdmin)
		}
	}
	if got := p.status(t, "CapBnd"); c.uid == 0 && got != netAdmin {
		t.Errorf("CapBnd is %s, want %s", got, netAdmin)
	}
	if got := p.status(t, "NoNewPrivs"); got != "1" {
		t.Errorf("NoNewPrivs is %s", got)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if c.uid != 0 && strings.Fields(string(maps))[0] != fmt.Sprint(c.uid) {
		t.Errorf("uid_map is %s, want %d", maps, c.uid)
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for mount := range strings.Lines(string(mounts)) {
		if options := strings.Fields(mount)[5]; !strings.HasPrefix(options, "ro") {
			t.Errorf("a mount can be written: %s", mount)
		}
	}
}
