package lab

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
)

func TestEnter(t *testing.T) {
	outside, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for name, marker := range map[string]string{
		"from outside":            "",
		"with a stale marker":     "1 net:[1]",
		"marked but not re-run":   fmt.Sprintf("%d %s", os.Getpid(), outside),
		"with a broken marker":    "yes",
		"marked by another child": fmt.Sprintf("%d net:[1]", os.Getppid()),
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "argument")
			cmd.Env = append(os.Environ(), helperVar+"=enter", outsideVar+"="+marker)
			cmd.Stderr = os.Stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, readErr := bufio.NewReader(stdout).ReadString('\n')
			signalErr := cmd.Process.Signal(unix.SIGTERM)
			var exit *exec.ExitError
			if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 || readErr != nil ||
				signalErr != nil {
				t.Fatalf("%q, %v, %v, %v, want exit status 7", line, readErr, signalErr, err)
			}
			inside, argument, _ := strings.Cut(strings.TrimSpace(line), " ")
			if !strings.HasPrefix(inside, "net:[") || inside == outside {
				t.Errorf("runs in %q, started in %s", inside, outside)
			}
			if argument != "argument" {
				t.Errorf("argument is %q", argument)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	tests := []struct {
		file, value, want string
	}{
		{"kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone is 0"},
		{"user/max_user_namespaces", "0\n", "user.max_user_namespaces is 0"},
		{"user/max_net_namespaces", "0\n", "user.max_net_namespaces is 0"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1\n",
			"kernel.apparmor_restrict_unprivileged_userns is 1"},
		{"user/max_user_namespaces", "1000\n", "run as root with CAP_SYS_ADMIN"},
	}
	for _, tt := range tests {
		got := missing(fstest.MapFS{tt.file: {Data: []byte(tt.value)}})
		if !strings.Contains(got, tt.want) || !strings.Contains(got, "not allowed here") {
			t.Errorf("%s=%q: %q does not say %q", tt.file, tt.value, got, tt.want)
		}
	}
}
