package netlink

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAbsentSubsystem asks the kernel for a subsystem of netfilter that no kernel has. So it answers requests
// to nftables where nf_tables is not loaded.
func TestAbsentSubsystem(t *testing.T) {
	conn := testConn(t)
	for _, flags := range []uint16{unix.NLM_F_ACK, unix.NLM_F_DUMP} {
		var w Writer
		w.Message(0x7f, unix.NFT_MSG_GETGEN, flags, unix.AF_UNSPEC)
		if err := absent(conn.Request(&w, func([]byte) error { return nil })); !errors.Is(err, ErrAbsent) {
			t.Errorf("flags %#x: error %v, want %v", flags, err, ErrAbsent)
		}
	}
	if _, err := conn.Generation(); err != nil {
		t.Errorf("nftables after that: %v", err)
	}
}
