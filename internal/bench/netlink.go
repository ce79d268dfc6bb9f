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

// netlinkChanges is the number of changes under strace, which is too slow for measurements of time.
const netlinkChanges = 5

// netlinkOf measures the bytes of a change on netlink sockets, including those of programs that the proxy
// runs. Without strace it does nothing.
func (b *bench) netlinkOf(ctx context.Context, n *node) error {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil
	}
	dir, err := os.MkdirTemp(b.dir, "strace-")
	if err != nil {
		return err
	}
	// strace can only decode sockets of its own network namespace. It writes a file for each thread.
	args := []string{"strace", "-ff", "-yy", "-qq", "-s", "0", "-e", "trace=network,read,write",
		"-o", filepath.Join(dir, "thread"), "-p", strconv.Itoa(n.proxy.pid)}
	trace, err := startProcess(n.lab.Node(), filepath.Join(b.dir, "strace.log"), args)
	if err != nil {
		return err
	}
	sleep(ctx, time.Second) // until it has attached to all threads
	for i := range netlinkChanges {
		slice := b.cluster.replaced(b.cluster.spread(i))
		_, err = n.measure(ctx, func() error { return b.cluster.update(ctx, slice) })
		if err = errors.Join(err, n.settle(ctx, stillness)); err != nil {
			break
		}
	}
	trace.stop() // strace detaches
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

// netlinkCall matches a system call on a netfilter socket, or on a socket from before strace attached.
var netlinkCall = regexp.MustCompile(
	`(sendto|sendmsg|write|recvfrom|recvmsg|read)\(\d+<NETLINK:\[(NETFILTER:)?\d+\]>`)

// netlinkBytes returns the bytes that the system call in a line of strace has moved.
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
