package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// process is a running kube-proxy.
type process struct {
	log   string
	stop  func()
	ended chan struct{}
}

// start starts kube-proxy in a namespace. Its log goes to a file.
func start(ns *lab.Namespace, binary, config, log string) (*process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "--config", config, "--v=2")
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &process{log: log, ended: make(chan struct{})}
	p.stop = func() { _ = cmd.Process.Kill(); <-p.ended }
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		defer file.Close()
		// The kernel sends the death signal when the thread that started the process ends (prctl(2)), so it
		// has to wait.
		_ = ns.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				err = cmd.Wait()
			}
			return err
		})
	}()
	return p, <-started
}

// errNoTables means that kube-proxy does not program anything for a case.
var errNoTables = errors.New("kube-proxy programs nothing")

// stillness is how long kube-proxy commits nothing when it has committed all: it waits for objects, and then
// programs one family after the other.
const stillness = 2 * time.Second

// limit is longer than the 30 s that kube-proxy waits for addresses of the Node.
const limit = 45 * time.Second

// programmed waits until kube-proxy has committed all. It does not notice when kube-proxy 1.37.1 has lost the
// zone of the Node (docs/compatibility.md): then the test of a case with hints fails, and has to be recorded
// anew.
func (p *process) programmed(ctx context.Context, conn *netlink.Conn) error {
	first, err := conn.Generation()
	if err != nil {
		return err
	}
	begin, moved, last := time.Now(), time.Now(), first
	for last == first || time.Since(moved) < stillness {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.ended:
			return fmt.Errorf("%w: it exited:\n%s", errNoTables, p.tail())
		case <-time.After(10 * time.Millisecond):
		}
		now, err := conn.Generation()
		if err != nil {
			return err
		}
		if now != last {
			moved, last = time.Now(), now
		}
		if time.Since(begin) > limit {
			return fmt.Errorf("%w within %s:\n%s", errNoTables, limit, p.tail())
		}
	}
	return nil
}

// tail returns the end of the log.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-1500):])
}
