package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// forget deletes what a memory has of clients whose endpoint is none of the
// Sticky's backends any more, and returns how many clients that were.
func (c *Conn) expireClients(s rules.Sticky) (int, error) {
	forgotten := 0
	for _, target := range s.Targets {
		n, err := c.expireTarget(s, target)
		if err != nil {
			return forgotten, fmt.Errorf("forget clients in map %s %s: %w", s.Family, s.MapName(target), err)
		}
		forgotten += n
	}
	return forgotten, nil
}

func (c *Conn) expireTarget(s rules.Sticky, target uint16) (int, error) {
	var gone [][]byte
	err := c.DumpElements(s.Family.Number(), nftables.TableName, s.MapName(target), func(element []byte) error {
		e := parseElement(element)
		addr, ok := netip.AddrFromSlice(e.data)
		if _, serves := slices.BinarySearchFunc(s.Backends, netip.AddrPortFrom(addr, target), service.Backend.Compare); ok && !serves {
			gone = append(gone, slices.Clone(e.key))
		}
		return nil
	})
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return 0, err
	}
	err = c.deleteClients(s, target, gone)
	if errors.Is(err, unix.ENOENT) {
		// One timed out meanwhile, and with it the batch failed.
		err = nil
		for i := range gone {
			if one := c.deleteClients(s, target, gone[i:i+1]); !errors.Is(one, unix.ENOENT) {
				err = errors.Join(err, one)
			}
		}
	}
	return len(gone), err
}

// deleteClients deletes elements of the memory, each in a message of its own.
func (c *Conn) deleteClients(s rules.Sticky, target uint16, clients [][]byte) error {
	if len(clients) == 0 {
		return nil
	}
	b := c.begin(s.Family)
	for _, key := range clients {
		b.Message(unix.NFT_MSG_DELSETELEM, 0, s.Family.Number())
		b.String(unix.NFTA_SET_ELEM_LIST_TABLE, nftables.TableName)
		b.String(unix.NFTA_SET_ELEM_LIST_SET, s.MapName(target))
		list := b.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		elem := b.Nest(unix.NFTA_LIST_ELEM)
		appendData(b, unix.NFTA_SET_ELEM_KEY, key)
		b.EndNest(elem)
		b.EndNest(list)
	}
	return c.commit(b)
}
