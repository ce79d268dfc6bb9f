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

// A Process is one program of the control plane. It can be stopped and started again, and is the same then: its port,
// its data and its credentials stay.
type Process struct {
	name   string
	binary string
	args   []string
	log    string // file that it writes to, appended to at each start
	ready  func() error

	cmd    *exec.Cmd
	stdin  io.Closer // the process ends when this does
	exited chan struct{}
}

// patience is how long a process has to become ready, and to end when told to.
const patience = 2 * time.Minute

// Start starts the process in the network namespace of the calling thread and returns when it is ready.
func (p *Process) Start(ctx context.Context) error {
	if p.Running() {
		return fmt.Errorf("start %s: it runs already", p.name)
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

// awaitReady asks until the process is ready. It does so on the calling thread, which may be the only one in its namespace.
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
			return fmt.Errorf("it ended: %v", p.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("%w: not ready: %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Running says whether the process has been started and has not ended.
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

// Stop has the process end in good order, as in an upgrade, and returns when it has.
func (p *Process) Stop() error {
	if !p.Running() {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-p.exited:
		_ = p.stdin.Close()
		return nil
	case <-time.After(patience):
		p.Kill()
		return fmt.Errorf("stop %s: it did not end within %v", p.name, patience)
	}
}

// Kill ends the process at once, as when the machine fails.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // fails if it has ended
	<-p.exited
	_ = p.stdin.Close()
}
