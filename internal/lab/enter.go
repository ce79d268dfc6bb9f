package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// outsideVar marks a process that this package has started in namespaces of its own.
const outsideVar = "NFTPROXY_LAB_OUTSIDE"

// mark returns a variable that marks a child in another network namespace than here.
func mark(variable, here string) string { return fmt.Sprintf("%s=%d %s", variable, os.Getpid(), here) }

// marked reports whether a variable marks this process, and returns the text that follows the mark. A value
// left over in an environment must never make the host's namespace look like ours.
func marked(variable, here string) (rest string, ok bool) {
	parent, rest, _ := strings.Cut(os.Getenv(variable), " ")
	outside, rest, _ := strings.Cut(rest, " ")
	return rest, parent == fmt.Sprint(os.Getppid()) && outside != here
}

// Main runs the tests of a package in new namespaces and exits with their status. It is the whole TestMain of
// a package that uses the lab. Where the kernel does not allow namespaces, the tests fail and name what is
// missing.
func Main(m interface{ Run() int }) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// Enter returns nil in a process that has user, network and mount namespaces of its own. In any other process
// it runs the same program again in such namespaces, forwards signals to it and exits with its status; it
// returns only if that is not possible. Call it first in main, because the new process starts from the
// beginning.
func Enter() error {
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("enter lab: %w", err)
	}
	if _, ok := marked(outsideVar, here); !ok {
		return reexec(here)
	}
	if err := os.Unsetenv(outsideVar); err != nil {
		return fmt.Errorf("enter lab: %w", err)
	}
	if err := arrive(); err != nil {
		return fmt.Errorf("enter lab: %w", err)
	}
	return nil
}

// arrive prepares the namespaces that this process was started in.
func arrive() error {
	// Without a user namespace mounts are still shared with the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	own, err := currentNamespace()
	if err != nil {
		return err
	}
	defer own.Close()
	return own.loopbackUp()
}

// reexec runs this program again in new namespaces and exits with its status.
func reexec(here string) error {
	// The death signal is sent when the thread that started the child ends, not the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)

	child, err := startInNamespaces(here, unix.CLONE_NEWUSER|unix.CLONE_NEWNET|unix.CLONE_NEWNS)
	if err != nil && os.Geteuid() == 0 {
		child, err = startInNamespaces(here, unix.CLONE_NEWNET|unix.CLONE_NEWNS)
	}
	if err != nil {
		return fmt.Errorf("enter lab: %s: %w", missing(os.DirFS("/proc/sys")), err)
	}
	go func() {
		for s := range signals {
			if !fromTerminal(s) {
				child.Process.Signal(s)
			}
		}
	}()
	var exit *exec.ExitError
	if err := child.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("enter lab: %w", err)
	}
	if ws, ok := child.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		os.Exit(128 + int(ws.Signal()))
	}
	os.Exit(child.ProcessState.ExitCode())
	return nil
}

func startInNamespaces(here string, flags uintptr) (*exec.Cmd, error) {
	cmd := again(here, flags)
	cmd.Args = os.Args
	return cmd, cmd.Start()
}

// again returns this program, to be started in new namespaces; it dies with the thread that starts it.
func again(here string, flags uintptr) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), mark(outsideVar, here))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL}
	if flags&unix.CLONE_NEWUSER != 0 {
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

// fromTerminal reports whether a user probably typed the signal: then the terminal has sent it to the child
// as well.
func fromTerminal(s os.Signal) bool {
	if s != unix.SIGINT && s != unix.SIGQUIT {
		return false
	}
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}

// missing names the sysctls that forbid the lab. A sandbox may forbid it without one.
func missing(sysctls fs.FS) string {
	var found []string
	for _, forbids := range []struct{ file, value string }{
		{"kernel/unprivileged_userns_clone", "0"},
		{"user/max_user_namespaces", "0"},
		{"user/max_net_namespaces", "0"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1"},
	} {
		data, err := fs.ReadFile(sysctls, forbids.file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			found = append(found, err.Error())
		}
		if value := strings.TrimSpace(string(data)); err == nil && value == forbids.value {
			found = append(found, "sysctl "+strings.ReplaceAll(forbids.file, "/", ".")+" is "+value)
		}
	}
	if len(found) == 0 {
		return "user and network namespaces are not allowed here (the sandbox or container around this " +
			"process forbids them): allow them, or run as root with CAP_SYS_ADMIN"
	}
	return "user namespaces are not allowed here: " + strings.Join(found, ", ") +
		"; change that or run as root"
}
