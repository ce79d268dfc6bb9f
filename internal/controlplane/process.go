package controlplane

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// Process is a program of the control plane. It keeps its port, its data and its credentials when a test
// stops and starts it.
type Process struct {
	name   string
	binary string
	args   []string
	log    string // file for its output, which each start appends to
	ready  func() error

	cmd    *exec.Cmd
	stdin  io.Closer // the process exits when this is closed
	exited chan struct{}
}

// patience limits the time until a process is ready, and from SIGTERM until it has exited.
const patience = 2 * time.Minute

// Start starts the process in the network namespace of the calling thread and returns when it is ready.
func (p *Process) Start(ctx context.Context) error {
	if p.Running() {
		return fmt.Errorf("start %s: already running", p.name)
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.binary, append([]string{p.name}, p.args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	p.cmd, p.stdin, p.exited = cmd, stdin, exited
	if err := p.awaitReady(ctx); err != nil {
		p.Kill()
		return fmt.Errorf("start %s: %w; see %s", p.name, err, p.log)
	}
	return nil
}

// awaitReady polls until the process is ready. It polls on the calling thread, which may be the only one in
// its network namespace.
func (p *Process) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := p.ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("process exited: %v", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%w: not ready: %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Running reports whether the process has started and not exited.
func (p *Process) Running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// PID returns the process id of a process that is running.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stop terminates the process gracefully, as in an upgrade, and waits until it has exited.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has exited
	select {
	case <-p.exited:
		_ = p.stdin.Close()
		return nil
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("stop %s: still running after %v", p.name, patience)
	}
}

// Kill kills the process, as a failure of the machine does.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // fails if it has exited
	<-p.exited
	_ = p.stdin.Close()
}
