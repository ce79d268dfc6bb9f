package conntrack

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Losses are packets that connection tracking dropped in a network namespace since the boot, or since the
// namespace exists. Each is the first packet of a connection, in most cases.
type Losses struct {
	// Dropped counts all of them: the table was full, or the flow could not be inserted.
	Dropped int
	// Insert counts flows that could not be inserted: another flow has the same addresses and ports. Few are
	// normal, as when a client sends two UDP packets at once; many mean that masquerading has no free port.
	Insert int
}

// ReadLosses returns the losses in the network namespace of the calling thread. It needs CAP_NET_ADMIN.
func ReadLosses() (l Losses, err error) {
	const (
		msgStats   = 4 // IPCTNL_MSG_CT_GET_STATS_CPU
		ctaInsert  = 9 // CTA_STATS_INSERT_FAILED
		ctaDropped = 10
	)
	s, err := netlink.Open()
	if err != nil {
		return l, fmt.Errorf("read conntrack statistics: %w", err)
	}
	defer s.Close()
	var w netlink.Writer
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgStats, unix.NLM_F_DUMP, unix.AF_UNSPEC)
	// A message for each CPU, whose number is the resource: an answer that seems to be of several moments.
	err = s.Request(&w, func(attributes []byte) error {
		for typ, v := range netlink.Attrs(attributes) {
			switch typ {
			case ctaInsert:
				l.Insert += int(number(v))
			case ctaDropped:
				l.Dropped += int(number(v))
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return Losses{}, fmt.Errorf("read conntrack statistics: %w", err)
	}
	return l, nil
}
