package proxier

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// sysctl returns a sysctl of connection tracking in a network namespace.
func sysctl(t *testing.T, ns *lab.Namespace, name string) string {
	t.Helper()
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/sys/net/netfilter/" + name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

const closeWait = "nf_conntrack_tcp_timeout_close_wait"

// TestInitOnly runs the init container of the manifests: CAP_NET_ADMIN, no other capability, and a directory
// with sysctls that can be written. It sets kube-proxy's defaults, after which the daemon has nothing to
// complain about. It needs no API server.
func TestInitOnly(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := confinement{caps: []uintptr{unix.CAP_NET_ADMIN}, ns: ns, root: scratch(t), sysctls: true}
	// Only the namespace of the host can set the number of flows.
	const noMax = "--conntrack-max-per-core=0"
	p := c.start(t, "--init-only", "--sysctl-dir=/host/proc/sys/net", noMax)
	if err := p.wait(t); err != nil {
		t.Fatalf("%v: %s", err, p.log())
	}
	const established = "nf_conntrack_tcp_timeout_established"
	for name, want := range map[string]string{closeWait: "3600", established: "86400"} {
		if got := sysctl(t, ns, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	c.sysctls = false
	d := &daemon{dir: filepath.Join(c.root, "manifests")}
	d.write(t, "node.yaml", nodeManifest)
	p = c.start(t, "--source=/manifests", "--hostname-override=node-a", noMax,
		"--cluster-cidr=10.244.0.0/16,fd00:10:244::/56")
	p.untilProgrammed(t, ns, d.dir)
	if log := p.log(); strings.Contains(log, "conntrack sysctl") {
		t.Errorf("the daemon after --init-only:\n%s", log)
	}
}

// TestInitOnlyFails shows that the init container fails if a sysctl cannot be set, so that it is tried again,
// and sets the others.
func TestInitOnlyFails(t *testing.T) {
	root := scratch(t)
	for _, test := range []struct {
		name    string
		sysctls bool
		args    []string
		want    string // in the output
		after   string // value of closeWait
	}{
		{"read-only", false, []string{"--conntrack-max-per-core=0"}, closeWait + " to 3600", "60"},
		{"one of them", true, []string{"--sysctl-dir=/host/proc/sys/net", "--conntrack-min=12345",
			"--conntrack-max-per-core=1"}, "nf_conntrack_max to 12345", "3600"},
		{"no such directory", true, []string{"--sysctl-dir=/manifests"}, "no such file", "60"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ns := lab.TestNamespace(t)
			c := confinement{caps: []uintptr{unix.CAP_NET_ADMIN}, ns: ns, root: root, sysctls: test.sysctls}
			p := c.start(t, append(test.args, "--init-only")...)
			var exit *exec.ExitError
			if err := p.wait(t); !errors.As(err, &exit) || exit.ExitCode() != 2 {
				t.Errorf("%v, want exit status 2", err)
			}
			if !strings.Contains(p.log(), test.want) {
				t.Errorf("the output lacks %q:\n%s", test.want, p.log())
			}
			if got := sysctl(t, ns, closeWait); got != test.after {
				t.Errorf("%s is %s, want %s", closeWait, got, test.after)
			}
		})
	}
}
