package main

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// withoutNetfilter makes the kernel answer the calling thread, until it ends, as a kernel without nfnetlink
// does: a socket of NETLINK_NETFILTER is EPROTONOSUPPORT.
func withoutNetfilter() error {
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		give  = unix.BPF_RET | unix.BPF_K
		// struct seccomp_data of linux/seccomp.h: the number of the system call, and arguments of 64 bits.
		number, first, third = 0, 16, 32
	)
	allow := unix.SockFilter{Code: give, K: unix.SECCOMP_RET_ALLOW}
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_SOCKET, Jt: 1}, allow,
		{Code: load, K: first},
		{Code: equal, K: unix.AF_NETLINK, Jt: 1}, allow,
		{Code: load, K: third},
		{Code: equal, K: unix.NETLINK_NETFILTER, Jt: 1}, allow,
		{Code: give, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPROTONOSUPPORT)},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// TestWithoutNFTables runs the commands on a kernel without nftables: they say what to load or install, and
// there is nothing to clean up.
func TestWithoutNFTables(t *testing.T) {
	for _, test := range []struct {
		args   []string
		output string
		exit   error
	}{
		{[]string{"--source=" + demo, "--hostname-override=node-a"}, "", netlink.ErrAbsent},
		{[]string{"--source=" + demo, "--hostname-override=node-a", "--init-only"}, "", netlink.ErrAbsent},
		{[]string{"check", "--source=" + demo, "--hostname-override=node-a"},
			"-> use a kernel with CONFIG_NF_TABLES, or install its modules", exitCode(1)},
		{[]string{"cleanup"}, "nothing to remove\n", nil},
	} {
		type result struct {
			out string
			err error
		}
		done := make(chan result)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
			if err := withoutNetfilter(); err != nil {
				done <- result{"", err}
				return
			}
			out, err := execute(t, test.args...)
			done <- result{out, err}
		}()
		r := <-done
		if !errors.Is(r.err, test.exit) || !strings.Contains(r.out, test.output) {
			t.Errorf("%v: error %v, want %v; printed %q, want %q", test.args, r.err, test.exit, r.out, test.output)
		}
	}
}
