package main

import (
	"bytes"
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// TestCleanupWithoutPrivilege runs cleanup on a thread without capabilities: it fails, and does not report
// that there is nothing to remove.
func TestCleanupWithoutPrivilege(t *testing.T) {
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetArgs([]string{"cleanup"})
	cmd.SetOut(&out)
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		result <- cmd.Execute()
	}()
	if err := <-result; !errors.Is(err, netlink.ErrPermission) {
		t.Errorf("error %v, want %v", err, netlink.ErrPermission)
	}
	if out.Len() > 0 {
		t.Errorf("printed %q, want nothing", out.String())
	}
}
