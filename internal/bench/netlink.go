package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// netlinkChanges are made under strace, which slows them down too much to time them.
const netlinkChanges = 5

// netlinkOf measures the bytes that a change is on netlink, those of programs that the proxy runs included. It needs
// strace; without it there is no such figure.
func (b *bench) netlinkOf(ctx context.Context, n *node) error {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil
	}
	dir, err := os.MkdirTemp(b.dir, "strace-")
	if err != nil {
		return err
	}
	// It runs where the proxy does, which tells it what sockets are; and writes a file for each thread.
	trace, err := startProcess(n.lab.Node(), filepath.Join(b.dir, "strace.log"), []string{"strace", "-ff", "-yy", "-qq", "-s", "0",
		"-e", "trace=network,read,write", "-o", filepath.Join(dir, "thread"), "-p", strconv.Itoa(n.proxy.pid)})
	if err != nil {
		return err
	}
	sleep(ctx, time.Second) // until it has attached to all threads
	for i := range netlinkChanges {
		_, err = n.measure(ctx, func() error { return b.cluster.update(ctx, b.cluster.replaced(b.cluster.spread(i))) })
		if err = errors.Join(err, n.settle(ctx, stillness)); err != nil {
			break
		}
	}
	trace.stop() // it detaches
	if err != nil {
		return fmt.Errorf("under strace: %w", err)
	}
	var sent, received int
	for _, file := range glob(filepath.Join(dir, "*")) {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			s, r := netlinkBytes(line)
			sent, received = sent+s, received+r
		}
	}
	b.put(n, "endpoint replaced: netlink, written", "kB", float64(sent)/1e3/netlinkChanges)
	b.put(n, "endpoint replaced: netlink, read", "kB", float64(received)/1e3/netlinkChanges)
	return os.RemoveAll(dir)
}

// netlinkCall is a line of strace about a socket of netfilter, or one that strace has not seen being bound.
var netlinkCall = regexp.MustCompile(`(sendto|sendmsg|write|recvfrom|recvmsg|read)\(\d+<NETLINK:\[(NETFILTER:)?\d+\]>`)

// netlinkBytes returns what a call whose line strace printed has moved.
func netlinkBytes(line []byte) (sent, received int) {
	call := netlinkCall.FindSubmatch(line)
	if call == nil || bytes.Contains(line, []byte("MSG_PEEK")) {
		return 0, 0
	}
	_, result, _ := strings.Cut(string(line[bytes.LastIndexByte(line, ')')+1:]), "= ")
	n, err := strconv.Atoi(strings.TrimSpace(result))
	if err != nil || n < 0 {
		return 0, 0
	}
	if strings.HasPrefix(string(call[1]), "re") {
		return 0, n
	}
	return n, 0
}
