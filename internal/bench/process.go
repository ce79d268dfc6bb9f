package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// process is a running program on a node.
type process struct {
	pid   int
	begun time.Time // right before the start
	ended chan struct{}
	err   error // result of the process, after ended is closed
	log   string
}

// startProcess starts a program in a namespace and appends its output to the file log.
func startProcess(ns *lab.Namespace, log string, args []string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{ended: make(chan struct{}), log: log}
	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		defer file.Close()
		// The kernel sends the death signal when the thread that started the process ends (prctl(2)). Do
		// keeps that thread until the process has ended.
		p.err = ns.Do(func() error {
			p.begun = time.Now()
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// stop ends the process as the kubelet does.
func (p *process) stop() {
	_ = syscall.Kill(p.pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		<-p.ended
	}
}

// alive returns an error with the last lines of the log if the process has exited.
func (p *process) alive() error {
	select {
	case <-p.ended:
		text, _ := os.ReadFile(p.log)
		return fmt.Errorf("process exited: %v\n%s", p.err, text[max(0, len(text)-2000):])
	default:
		return nil
	}
}

// ticks is the unit of /proc/PID/stat (proc(5)): USER_HZ is 100 on amd64 and arm64.
const ticks = 10 * time.Millisecond

// cpuTime is the CPU time of a process and its children.
type cpuTime struct {
	total        time.Duration // in nanoseconds, the part of children in ticks
	user, system time.Duration // in ticks
}

func cpuOf(pid int) cpuTime {
	var c cpuTime
	for _, file := range glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid)) {
		c.total += runTime(file)
	}
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := bytes.Cut(text, []byte(") "))
	if f := strings.Fields(string(rest)); len(f) > 14 {
		n := func(i int) time.Duration { v, _ := strconv.Atoi(f[i]); return time.Duration(v) * ticks }
		c.user, c.system = n(11)+n(13), n(12)+n(14)
		c.total += n(13) + n(14) // exited children
	}
	return c
}

func (c cpuTime) plus(d cpuTime) cpuTime {
	return cpuTime{c.total + d.total, c.user + d.user, c.system + d.system}
}

func (c cpuTime) minus(before cpuTime) cpuTime {
	return cpuTime{c.total - before.total, c.user - before.user, c.system - before.system}
}

// workers is the CPU time of each kernel worker of the machine. nftables uses them to free replaced objects
// after a commit.
type workers map[string]time.Duration

func workerTime() workers {
	w := workers{}
	for _, file := range glob("/proc/[0-9]*/comm") {
		if name, _ := os.ReadFile(file); bytes.HasPrefix(name, []byte("kworker")) {
			w[file] = runTime(filepath.Join(filepath.Dir(file), "schedstat"))
		}
	}
	return w
}

// since returns the CPU time since before. It ignores workers that have ended.
func (w workers) since(before workers) (sum time.Duration) {
	for file, now := range w {
		sum += max(0, now-before[file])
	}
	return sum
}

func glob(pattern string) []string {
	files, _ := filepath.Glob(pattern) // the patterns are well-formed
	return files
}

// runTime returns the CPU time in a schedstat file.
func runTime(file string) time.Duration {
	text, _ := os.ReadFile(file)
	first, _, _ := strings.Cut(string(text), " ")
	n, _ := strconv.ParseInt(first, 10, 64)
	return time.Duration(n)
}

// memory is the memory usage of a process, in bytes.
type memory struct {
	resident, peak float64
	// anonymous is the resident memory without file pages, which the kernel can drop and read again.
	anonymous float64
}

func memoryOf(pid int) memory {
	var m memory
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			m.resident = kib * 1024
		case "VmHWM:":
			m.peak = kib * 1024
		case "RssAnon:":
			m.anonymous = kib * 1024
		}
	}
	return m
}
