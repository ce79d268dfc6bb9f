package lab

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aloneVar names the test that this process was started for; see Alone.
const aloneVar = "NFTPROXY_LAB_ALONE"

// Alone runs the calling test in a child process, whose network namespace is new. Use it to test code that
// works in the namespace of its process, as nftproxy does. It returns true in the child. In the calling
// process it returns false when the child has ended:
//
//	if !lab.Alone(t) {
//		return
//	}
//
// The test fails if it fails in the child, and if the child does not run it to its end. It logs the output of
// the child if it fails, and with -v. The child gets the flags of this process, except that -run selects only
// this test. So call Alone in a test that has no subtests to select, or in each subtest. Code before Alone,
// and the tests around this one, run in both processes.
func Alone(t *testing.T) bool {
	t.Helper()
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatalf("run alone: %v", err)
	}
	target, ok := marked(aloneVar, here)
	if ok && (target == t.Name() || strings.HasPrefix(target, t.Name()+"/")) {
		if err := arrive(); err != nil {
			t.Fatalf("run alone: %v", err)
		}
		return true
	}
	output, err := runAlone(t, here)
	switch {
	case err != nil:
		t.Errorf("run alone: %v\n%s", err, output)
	case testing.Verbose():
		t.Logf("run alone:\n%s", output)
	}
	return false
}

// runAlone runs the test in a child and returns the output of that.
func runAlone(t *testing.T, here string) ([]byte, error) {
	// The death signal is sent when the thread that started the child ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := again(here, unix.CLONE_NEWNET|unix.CLONE_NEWNS)
	cmd.Args = append([]string{os.Args[0]}, aloneFlags(t)...)
	cmd.Env = append(cmd.Env, mark(aloneVar, here)+" "+t.Name())
	log := ""
	if f := flag.Lookup("test.testlogfile"); f.Value.String() != "" {
		log = filepath.Join(t.TempDir(), "testlog")
		cmd.Args = append(cmd.Args, "-test.testlogfile="+log)
	}
	var output bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, &output, &output
	if err := cmd.Run(); err != nil {
		return output.Bytes(), err
	}
	if !regexp.MustCompile(`--- PASS: ` + regexp.QuoteMeta(t.Name()) + ` \(`).Match(output.Bytes()) {
		return output.Bytes(), errors.New("the child did not run the test to its end")
	}
	return output.Bytes(), repeatLookups(log)
}

// aloneFlags returns the flags of this process, except for those that select tests, and flags that select
// this test.
func aloneFlags(t *testing.T) []string {
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	args := []string{"-test.run=" + pattern, "-test.count=1", "-test.v=true"}
	if deadline, ok := t.Deadline(); ok {
		left := time.Until(deadline)
		// The child ends first, so that it can report where it hangs.
		args = append(args, fmt.Sprint("-test.timeout=", left-min(left/10, 5*time.Second)))
	}
	flag.Visit(func(f *flag.Flag) {
		switch name, ours := strings.CutPrefix(f.Name, "test."); {
		case !ours, slices.Contains([]string{"short", "parallel", "failfast", "fullpath", "skip"}, name):
			args = append(args, fmt.Sprintf("-%s=%s", f.Name, f.Value))
		}
	})
	return args
}

// repeatLookups reads the log of a child and looks at the same files and variables: go test takes a result
// from its cache while nothing changes that this process has looked at.
func repeatLookups(log string) error {
	if log == "" {
		return nil
	}
	data, err := os.ReadFile(log)
	if err != nil {
		return fmt.Errorf("read test log: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		switch op, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); op {
		case "open", "stat":
			_, _ = os.Stat(name)
		case "getenv":
			_ = os.Getenv(name)
		}
	}
	return nil
}
