package memory

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// build builds the program and returns its path.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "nftproxy")
	cmd := exec.Command("go", "build", "-trimpath", "-o", program, "../../cmd/nftproxy")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build nftproxy: %v\n%s", err, output)
	}
	return program
}

// daemon is a running nftproxy.
type daemon struct {
	ns     *lab.Namespace
	cgroup *cgroup
	cmd    *exec.Cmd
	log    log
	ended  chan struct{}
	err    error // valid when it has ended
}

// startDaemon starts the program in a namespace and a cgroup.
func startDaemon(t *testing.T, ns *lab.Namespace, c *cgroup, program string, args ...string) *daemon {
	t.Helper()
	forget(t, program)
	cmd := exec.Command(program, args...)
	c.wrap(cmd)
	d := startCommand(t, ns, cmd)
	d.cgroup = c
	return d
}

// forget makes the kernel read a file again. The pages of a program are charged to the cgroup that reads it,
// in a pod to that of the pod.
func forget(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	must(t, err)
	defer file.Close()
	must(t, file.Sync())
	must(t, unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED))
}

// startCommand starts a daemon in a namespace.
func startCommand(t *testing.T, ns *lab.Namespace, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{ns: ns, cmd: cmd, ended: make(chan struct{})}
	cmd.Args = append(cmd.Args, "--hostname-override="+nodeName)
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	must(t, ns.Do(cmd.Start))
	go func() {
		d.err = cmd.Wait()
		close(d.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-d.ended
	})
	return d
}

// stop ends the daemon.
func (d *daemon) stop(t *testing.T) {
	t.Helper()
	must(t, d.cmd.Process.Signal(unix.SIGTERM))
	<-d.ended
	if d.err != nil {
		t.Errorf("the daemon ended: %v\n%s", d.err, d.log.String())
	}
}

// awaitHealthy waits until the daemon has programmed everything.
func (d *daemon) awaitHealthy(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); {
		if status, _ := d.get(t, "http://127.0.0.1:10256/healthz"); status == http.StatusOK {
			return
		}
		select {
		case <-d.ended:
			t.Fatalf("the daemon ended: %v\n%s", d.err, d.log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatalf("not healthy after minutes:\n%s", d.log.String())
}

// collectBundle runs nftproxy support-bundle beside the daemon, with the same limit. Each part must be in the
// archive.
func (d *daemon) collectBundle(t *testing.T, program string) {
	t.Helper()
	cmd := exec.Command(program, "support-bundle", "--output="+filepath.Join(t.TempDir(), "bundle.tar.gz"))
	d.cgroup.wrap(cmd)
	cmd.Args = append(cmd.Args, "--hostname-override="+nodeName)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	must(t, d.ns.Do(cmd.Start))
	err := cmd.Wait()
	t.Log(strings.TrimSpace(said.String()))
	if err != nil || strings.Contains(said.String(), "is not complete") {
		t.Errorf("support-bundle: %v\n%s", err, d.log.String())
	}
}

// get requests a page in the namespace of the daemon. The status is 0 while nothing listens.
func (d *daemon) get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	dial := func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = d.ns.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(text)
}

// log is what a daemon has printed.
type log struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}
