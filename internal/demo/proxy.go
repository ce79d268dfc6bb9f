package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

const (
	programTimeout = 10 * time.Second // from a change of the manifests to the change in the kernel
	stopTimeout    = 5 * time.Second  // from SIGTERM to the end of the daemon
	pollInterval   = 20 * time.Millisecond
)

// proxy is the daemon on the node. It also runs other commands of the same binary there.
type proxy struct {
	binary  string
	node    *lab.Namespace
	dir     *directory
	process *os.Process
	ended   chan struct{} // closed when the daemon has ended, after err is set
	err     error         // how it ended; nil is exit code 0
}

// arguments returns the command line that describes the lab to nftproxy.
func arguments(source string) []string {
	return []string{"--source", source, "--hostname-override", lab.NodeName,
		"--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"}
}

// startProxy starts the daemon on a node. The caller must call kill.
func startProxy(binary string, node *lab.Namespace, dir *directory) (*proxy, error) {
	p := &proxy{binary: binary, node: node, dir: dir, ended: make(chan struct{})}
	cmd := exec.Command(binary, append(arguments(dir.manifests()), "-v=1")...)
	logFile, err := os.Create(p.logPath())
	if err != nil {
		return nil, fmt.Errorf("start nftproxy: %w", err)
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// In its own process group the daemon does not get the interrupt of the terminal: the demo stops it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		defer logFile.Close()
		// The kernel sends the death signal when the thread that started the process ends (prctl(2)). Do
		// keeps that thread until the process has ended.
		p.err = node.Do(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
	}()
	select {
	case err = <-started:
	case <-p.ended: // failed to enter the namespace
		err = p.err
	}
	if err != nil {
		return nil, fmt.Errorf("start nftproxy: %w", err)
	}
	p.process = cmd.Process
	return p, nil
}

func (p *proxy) logPath() string { return filepath.Join(p.dir.root, "nftproxy.log") }

// log returns the output of the daemon up to now.
func (p *proxy) log() string {
	text, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error() + "\n"
	}
	return string(text)
}

// whileAlive returns a context that also ends when the daemon ends.
func (p *proxy) whileAlive(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // until kill
		<-p.ended
		if p.err != nil {
			cancel(fmt.Errorf("nftproxy exited: %w", p.err))
		}
		cancel(errors.New("nftproxy exited with code 0 before the demo stopped it"))
	}()
	return ctx
}

// waitProgrammed waits until nftproxy diff has nothing left to change, except for unused chains. The daemon
// deletes these after the commit, diff lists them under a heading of their own, and no connection depends on
// them.
func (p *proxy) waitProgrammed(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, programTimeout)
	defer cancel()
	var changes string
	for {
		text, err := p.output(limited, "diff")
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case limited.Err() != nil:
			return fmt.Errorf("nftproxy did not program the kernel within %v, remaining changes:\n%s",
				programTimeout, changes)
		}
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			return err
		}
		changes, _, _ = strings.Cut(text, "# after the commit:")
		if err == nil || changes == "" {
			return nil
		}
		wait(limited, pollInterval)
	}
}

// output runs a command of nftproxy on the node and returns its standard output. If the exit code is not 0,
// the error wraps *exec.ExitError and contains the standard error.
func (p *proxy) output(ctx context.Context, command string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.binary, append([]string{command}, arguments(p.dir.manifests())...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := p.node.Do(cmd.Run); err != nil {
		detail := strings.TrimSpace(stderr.String())
		return stdout.String(), fmt.Errorf("nftproxy %s: %w\n%s", command, err, detail)
	}
	return stdout.String(), nil
}

// stop sends SIGTERM to the daemon and waits for its end. It returns an error unless the exit code is 0.
func (p *proxy) stop() error {
	if err := p.process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop nftproxy: %w", err)
	}
	select {
	case <-p.ended:
	case <-time.After(stopTimeout):
		return fmt.Errorf("stop nftproxy: still running %v after SIGTERM", stopTimeout)
	}
	if p.err != nil {
		return fmt.Errorf("stop nftproxy: %w", p.err)
	}
	return nil
}

// kill kills the daemon if it still runs, and waits for its end.
func (p *proxy) kill() {
	p.process.Kill()
	<-p.ended
}
