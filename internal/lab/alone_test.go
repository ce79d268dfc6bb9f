package lab

import (
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

var passedOn = flag.String("passed-on", "", "a flag of this test, for TestAlone")

func networkNamespace(t *testing.T) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// TestAlone runs two subtests at a time, each in a process and a network namespace of its own.
func TestAlone(t *testing.T) {
	outside := []string{networkNamespace(t), fmt.Sprint(os.Getpid())}
	if given := os.Getenv("NFTPROXY_LAB_TEST_OUTSIDE"); given != "" {
		outside = strings.Fields(given)
	} else {
		t.Setenv("NFTPROXY_LAB_TEST_OUTSIDE", strings.Join(outside, " "))
		if err := flag.Set("passed-on", "by the parent"); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("group", func(t *testing.T) {
		for _, name := range []string{"one", "two words", "a/path", "[x](y)|z"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				if !Alone(t) {
					return
				}
				if ns := networkNamespace(t); ns == outside[0] || fmt.Sprint(os.Getpid()) == outside[1] {
					t.Errorf("runs in %s, in process %d; want other ones than %v", ns, os.Getpid(), outside)
				}
				if *passedOn != "by the parent" {
					t.Errorf("flag -passed-on is %q", *passedOn)
				}
				if _, err := os.ReadFile("testdata/nat.yaml"); err != nil { // for TestAloneRepeatsLookups
					t.Error(err)
				}
				lo, err := netlink.LinkByName("lo")
				if err != nil || lo.Attrs().RawFlags&1 == 0 {
					t.Errorf("lo is not up: %v, %v", lo, err)
				}
			})
		}
	})
}

// TestHere lays out a lab around the namespace of the process, which can hold one lab only.
func TestHere(t *testing.T) {
	if !Alone(t) {
		return
	}
	l := newLab(t, Options{Here: true})
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, link := range links {
		names = append(names, link.Attrs().Name)
	}
	for _, want := range []string{"eth0", "veth-pod-a", "veth-pod-b"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("the process has the devices %v, want %s among them", names, want)
		}
	}
	serveAll(t, l, 80)
	if r := l.Request("client", "tcp", netip.MustParseAddrPort("192.0.2.1:80")); r.By != "host-pod" {
		t.Errorf("%s by %q (%v), want an answer of host-pod", r.Outcome, r.By, r.Err)
	}
	if second, err := New(Options{Here: true}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second lab here: %v, %v; want an error", second, err)
	}
}

// victims are the tests of TestAlonePassesOnResults.
func victims() []testing.InternalTest {
	alone := func(f func(t *testing.T)) func(*testing.T) {
		return func(t *testing.T) {
			if Alone(t) {
				f(t)
			}
		}
	}
	return []testing.InternalTest{
		{Name: "TestPasses", F: alone(func(t *testing.T) { t.Log("in the child") })},
		{Name: "TestFails", F: alone(func(t *testing.T) { t.Error("in the child") })},
		{Name: "TestFailsInSubtest", F: alone(func(t *testing.T) {
			t.Run("sub", func(t *testing.T) { t.Error("in the child") })
		})},
		{Name: "TestPanics", F: alone(func(*testing.T) { panic("in the child") })},
		{Name: "TestExits", F: alone(func(*testing.T) { os.Exit(0) })},
		{Name: "TestSkips", F: alone(func(t *testing.T) { t.Skip("in the child") })},
		{Name: "TestIsNotThere", F: func(t *testing.T) {
			t.Run(fmt.Sprint("in process ", os.Getpid()), alone(func(*testing.T) {}))
		}},
		{Name: "TestHangs", F: alone(func(t *testing.T) {
			_, _ = os.NewFile(3, "started").WriteString("x")
			inTheChild()
		})},
	}
}

// inTheChild never returns.
func inTheChild() { select {} }

// runVictim runs a victim, and returns its output and whether it passed.
func runVictim(name string, flags ...string) (output string, passed bool) {
	cmd := exec.Command(os.Args[0], append(flags, "-test.run=^"+name+"$")...)
	cmd.Env = append(os.Environ(), helperVar+"=victims")
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// TestAlonePassesOnResults runs tests whose children end in different ways: only the test that passes in the
// child passes, and the output of the others says why they fail.
func TestAlonePassesOnResults(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		passed       bool
	}{
		{name: "TestPasses", passed: true, output: `^PASS\n$`},
		{name: "TestFails", output: `in the child`},
		{name: "TestFailsInSubtest", output: `in the child`},
		{name: "TestPanics", output: `panic: in the child`},
		{name: "TestExits", output: `did not run the test to its end`},
		{name: "TestSkips", output: `(?s)did not run the test.*in the child`},
		{name: "TestIsNotThere", output: `(?s)did not run the test.*no tests to run`},
		{name: "TestHangs", output: `(?s)--- FAIL: TestHangs.*test timed out.*inTheChild`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			output, passed := runVictim(tt.name, "-test.timeout=5s")
			if passed != tt.passed || !regexp.MustCompile(tt.output).MatchString(output) {
				t.Errorf("passed is %t, want %t, with output %q:\n%s", passed, tt.passed, tt.output, output)
			}
		})
	}
	output, passed := runVictim("TestPasses", "-test.v")
	if !passed || !strings.Contains(output, "in the child") {
		t.Errorf("passed with -v is %t, want true and the output of the child:\n%s", passed, output)
	}
}

// TestAloneRepeatsLookups runs TestAlone as go test does. The log by which go test decides whether a cached
// result is valid has the file that only the children read.
func TestAloneRepeatsLookups(t *testing.T) {
	log := filepath.Join(t.TempDir(), "testlog")
	cmd := exec.Command(os.Args[0], "-test.run=^TestAlone$", "-test.testlogfile="+log)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "\nstat testdata/nat.yaml\n") {
		t.Errorf("testdata/nat.yaml is not in the log:\n%s", data)
	}
}

// TestAloneDiesWithParent kills a test whose child runs: the child ends as well.
func TestAloneDiesWithParent(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHangs$")
	cmd.Env = append(os.Environ(), helperVar+"=victims")
	cmd.ExtraFiles = []*os.File{write} // all descendants inherit it
	err = cmd.Start()
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.Read(make([]byte, 1)); err != nil {
		t.Errorf("the child does not start: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	if err := read.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := read.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after 10 s a descendant holds the pipe: %d, %v", n, err)
	}
}
