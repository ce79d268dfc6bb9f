package memory

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
)

var (
	services = flag.Int("services", 0, "the `number` of Services of TestLimit")
	limit    = flag.Int("limit", 384, "the limit in MiB that TestLimit shows with -services")
)

// TestMain enters namespaces only where it must: the daemon needs the initial user namespace for the size of
// its first transaction, and a test needs it to make a cgroup.
func TestMain(m *testing.M) {
	if canCommit() {
		os.Exit(m.Run())
	}
	lab.Main(m)
}

// canCommit reports whether this process is root in the initial user namespace.
func canCommit() bool {
	ids, err := os.ReadFile("/proc/self/uid_map")
	fields := strings.Fields(string(ids))
	return err == nil && os.Geteuid() == 0 && len(fields) == 3 && fields[2] == "4294967295"
}

// TestLimit runs the daemon in a cgroup with the limits of docs/performance.md. The daemon must program
// everything, without being killed, while the command of a support bundle runs beside it, as kubectl exec does
// it; with the first source a second one must then read everything back and take over. Flags choose another
// number of Services and another limit:
//
//	go test ./internal/memory -run TestLimit -v -services 20000 -limit 192
func TestLimit(t *testing.T) {
	program := build(t)
	large := limitCase{50_000, 384}
	cases := []limitCase{{10_000, manifestLimit(t)}, large}
	switch {
	case *services > 0:
		cases = []limitCase{{*services, *limit}}
	case !canCommit():
		t.Log("not root: the kernel accepts small transactions only, so this shows a small cluster")
		cases = []limitCase{{500, manifestLimit(t)}}
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%d Services from an API server", c.services), func(t *testing.T) {
			c.run(t, program, func(ns *lab.Namespace) string {
				return "--master=" + serveAPI(t, ns, c.services, false)
			}, "first start", "restart")
		})
		if c == large {
			continue // the others take minutes; the flags select them
		}
		t.Run(fmt.Sprintf("%d Services from an API server that lists", c.services), func(t *testing.T) {
			c.run(t, program, func(ns *lab.Namespace) string {
				return "--master=" + serveAPI(t, ns, c.services, true)
			}, "first start")
		})
		t.Run(fmt.Sprintf("%d Services from manifests", c.services), func(t *testing.T) {
			c.run(t, program, func(*lab.Namespace) string {
				return "--source=" + writeManifests(t, c.services)
			}, "first start")
		})
	}
}

// limitCase is a number of Services and the limit in MiB that is enough for them.
type limitCase struct{ services, limit int }

// run starts daemons one after the other, with the flag that source returns.
func (c limitCase) run(t *testing.T, program string, source func(*lab.Namespace) string, starts ...string) {
	ns := lab.TestNamespace(t)
	flag := source(ns)
	for _, start := range starts {
		d := startDaemon(t, ns, newCgroup(t, c.limit<<20), program, flag)
		d.awaitHealthy(t)
		d.collectBundle(t, program)
		d.stop(t)
		if got := countEndpoints(t, ns); got != endpoints*c.services {
			t.Errorf("%s: %d endpoints are in the kernel, want %d", start, got, endpoints*c.services)
		}
		peak := d.cgroup.peak(t, d.cmd)
		t.Logf("%s: peak of %d MiB, limit %d MiB", start, peak>>20, c.limit)
		if d.cgroup.dir == "" && peak > c.limit<<20 {
			t.Errorf("%s: the limit does not hold", start)
		}
	}
}

// manifestLimit returns the limit in MiB that the DaemonSet has, which must hold for 10,000 Services.
func manifestLimit(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("../../manifests/base/daemonset.yaml")
	must(t, err)
	var set appsv1.DaemonSet
	must(t, yaml.UnmarshalStrict(text, &set))
	return int(set.Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value() >> 20)
}

// writeManifests writes a cluster to files, a Service and its EndpointSlice to a document each. The objects
// have all fields that kubectl prints.
func writeManifests(t *testing.T, services int) string {
	t.Helper()
	const perFile = 1000
	service, err := yaml.Marshal(newService(0))
	must(t, err)
	slice, err := yaml.Marshal(newSlice(0))
	must(t, err)
	dir := t.TempDir()
	for first := 0; first < services; first += perFile {
		var file bytes.Buffer
		for i := first; i < min(first+perFile, services); i++ {
			texts := []string{name(0), name(i), serviceAddr(0), serviceAddr(i)}
			for j := range endpoints {
				texts = append(texts, endpointAddr(0, j), endpointAddr(i, j))
			}
			_, err := strings.NewReplacer(texts...).WriteString(&file, fmt.Sprintf("---\n%s---\n%s", service, slice))
			must(t, err)
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d.yaml", first)), file.Bytes(), 0o644))
	}
	return dir
}

// countEndpoints returns the number of elements of the map endpoints.
func countEndpoints(t *testing.T, ns *lab.Namespace) (n int) {
	t.Helper()
	must(t, ns.Do(func() error {
		conn, err := netlink.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		return conn.DumpElements(unix.NFPROTO_IPV4, nftables.TableName, nftables.Endpoints.String(),
			func([]byte) error { n++; return nil })
	}))
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
