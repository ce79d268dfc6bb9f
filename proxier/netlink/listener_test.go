package netlink

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestListener listens for changes of the ruleset: it gets them with type, family and attributes, learns when
// it has missed some, and can go on.
func TestListener(t *testing.T) {
	ns := lab.TestNamespace(t)
	c := testDial(t, ns)
	var l *Listener
	err := ns.Do(func() (err error) {
		l, err = Listen(unix.NFNLGRP_NFTABLES)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tables := 0
	receive := func(wait time.Duration) error {
		return l.Receive(wait, func(msgType uint16, family uint8, attributes []byte) {
			for typ, v := range Attrs(attributes) {
				if msgType == unix.NFT_MSG_NEWTABLE && family == testFamily &&
					typ == unix.NFTA_TABLE_NAME && String(v) != "" {
					tables++
				}
			}
		})
	}
	if err := receive(time.Millisecond); err != nil || tables != 0 {
		t.Errorf("before a change: %d tables, error %v", tables, err)
	}
	mustCommit(t, c, putTable)
	if err := receive(10 * time.Second); err != nil || tables != 1 {
		t.Errorf("%d tables, error %v; want 1", tables, err)
	}
	// The kernel sends less for an element than it reserves, so the smallest buffer is soon full.
	if err := unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		mustCommit(t, c, putSet, func(b *Batch) {
			putElements(b, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, 0, 1_000)
		}, deleteTable, putTable)
	}
	missed := false
	for range 10 {
		err := receive(time.Millisecond)
		missed = missed || errors.Is(err, ErrMissed)
	}
	tables = 0
	mustCommit(t, c, deleteTable, putTable)
	if err := receive(10 * time.Second); err != nil || !missed || tables != 1 {
		t.Errorf("after a flood: %d tables, error %v, missed %t; want 1, and to have missed some",
			tables, err, missed)
	}
}

func deleteTable(b *Batch) {
	b.Message(unix.NFT_MSG_DELTABLE, 0, testFamily)
	b.String(unix.NFTA_TABLE_NAME, testTable)
}

// TestListenWithoutPrivilege listens on a thread without capabilities.
func TestListenWithoutPrivilege(t *testing.T) {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := dropCapabilities(); err != nil {
			result <- err
			return
		}
		l, err := Listen(unix.NFNLGRP_NFTABLES)
		if err == nil {
			err = l.Close()
		}
		result <- err
	}()
	if err := <-result; !errors.Is(err, ErrPermission) {
		t.Errorf("error %v, want %v", err, ErrPermission)
	}
}
