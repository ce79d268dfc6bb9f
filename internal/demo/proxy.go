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
	programTimeout = 10 * time.Second // until a change is in the kernel
	stopTimeout    = 5 * time.Second  // from SIGTERM to the end of the daemon
	pollInterval   = 20 * time.Millisecond
)

// proxy is the daemon on the node. The other commands of the same binary run beside it.
type proxy struct {
	binary  string
	node    *lab.Namespace
	dir     *directory
	process *os.Process
	ended   chan struct{} // closed when the daemon has ended, after err is set
	err     error         // how it ended; nil is exit code 0
}

// arguments are what nftproxy needs to know about the lab.
func arguments(source string) []string {
	return []string{"--source", source, "--hostname-override", lab.NodeName, "--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"}
}

// startProxy starts the daemon on a node. Call kill in the end.
func startProxy(binary string, node *lab.Namespace, dir *directory) (*proxy, error) {
	p := &proxy{binary: binary, node: node, dir: dir, ended: make(chan struct{})}
	cmd := exec.Command(binary, append(arguments(dir.manifests()), "-v=1")...)
	logFile, err := os.Create(p.logPath())
	if err != nil {
		return nil, fmt.Errorf("start nftproxy: %w", err)
	}
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// A group of its own, so that the terminal's interrupt is for the demo alone, which then stops the daemon.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		defer logFile.Close()
		// The death signal is sent when the thread ends that started the process. Do holds on to it until the end.
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
	case <-p.ended: // the namespace could not be entered
		err = p.err
	}
	if err != nil {
		return nil, fmt.Errorf("start nftproxy: %w", err)
	}
	p.process = cmd.Process
	return p, nil
}

func (p *proxy) logPath() string { return filepath.Join(p.dir.root, "nftproxy.log") }

// log is what the daemon has written so far.
func (p *proxy) log() string {
	text, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error() + "\n"
	}
	return string(text)
}

// whileAlive returns a context which also ends when the daemon does.
func (p *proxy) whileAlive(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { // until kill
		<-p.ended
		if p.err != nil {
			cancel(fmt.Errorf("nftproxy has ended: %w", p.err))
		}
		cancel(errors.New("nftproxy has ended of itself"))
	}()
	return ctx
}

// waitProgrammed waits until nftproxy diff finds nothing to change. Chains that nobody uses any more may be left, which
// diff lists under a heading of their own: no connection depends on when they go.
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
			return fmt.Errorf("nftproxy has not programmed the kernel after %v; what it still has to do:\n%s", programTimeout, changes)
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

// output runs a command of nftproxy on the node and returns what it prints on standard output. The error wraps
// *exec.ExitError if its exit code is not 0, and has what it printed on standard error.
func (p *proxy) output(ctx context.Context, command string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, p.binary, append([]string{command}, arguments(p.dir.manifests())...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := p.node.Do(cmd.Run); err != nil {
		return stdout.String(), fmt.Errorf("nftproxy %s: %w\n%s", command, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// stop tells the daemon to end and waits for it. The error is for every end but exit code 0.
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

// kill ends the daemon, if it still runs, and waits for its end.
func (p *proxy) kill() {
	p.process.Kill()
	<-p.ended
}
