package proxier

import (
	"context"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// commits is another program that commits nftables transactions in a namespace all the time: it adds an
// element to a set in a table of its own, and deletes it again.
type commits struct {
	stop    context.CancelFunc
	running sync.WaitGroup
	began   time.Time
	n       int
	err     error
}

// startCommits starts to commit, so many times a second, until the end of the test.
func startCommits(tb testing.TB, ns *lab.Namespace, perSecond int) {
	tb.Helper()
	if out, err := ns.Nft("table inet busy { set s { type ipv4_addr; }; }"); err != nil {
		tb.Fatalf("create table: %v: %s", err, out)
	}
	conn := dial(tb, ns, kernel.Options{})
	ctx, stop := context.WithCancel(tb.Context())
	c := &commits{stop: stop, began: time.Now()}
	c.running.Go(func() {
		for c.err == nil && ctx.Err() == nil {
			// Short sleeps last longer than asked for, so commits that are late are made at once.
			if due := int(time.Since(c.began).Seconds() * float64(perSecond)); c.n >= due {
				time.Sleep(time.Second / time.Duration(perSecond))
				continue
			}
			c.err = conn.Commit(oneElement(c.n%2 == 0))
			c.n++
		}
	})
	tb.Cleanup(func() {
		c.stop()
		c.running.Wait()
		took := time.Since(c.began).Seconds()
		tb.Logf("the other program committed %.0f transactions a second", float64(c.n)/took)
		if c.err != nil {
			tb.Errorf("the other program: %v", c.err)
		}
	})
}

// oneElement adds the element of the set, or deletes it.
func oneElement(add bool) *netlink.Batch {
	b := &netlink.Batch{}
	msgType, flags := uint16(unix.NFT_MSG_DELSETELEM), uint16(0)
	if add {
		msgType, flags = unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE
	}
	b.Message(msgType, flags, unix.NFPROTO_INET)
	b.String(unix.NFTA_SET_ELEM_LIST_TABLE, "busy")
	b.String(unix.NFTA_SET_ELEM_LIST_SET, "s")
	list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	element := b.Nest(1)
	key := b.Nest(unix.NFTA_SET_ELEM_KEY)
	b.U32(unix.NFTA_DATA_VALUE, 0xc0000201)
	b.EndNest(key)
	b.EndNest(element)
	b.EndNest(list)
	return b
}
