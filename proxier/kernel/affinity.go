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

// expireClients deletes the clients of a Sticky whose endpoint is no longer one of its backends, and returns
// how many these were.
func (c *Conn) expireClients(s rules.Sticky) (int, error) {
	expired := 0
	for _, target := range s.Targets {
		n, err := c.expireTarget(s, target)
		if err != nil {
			return expired, fmt.Errorf("expire clients in map %s %s: %w", s.Family, s.MapName(target), err)
		}
		expired += n
	}
	return expired, nil
}

// expireTarget does this in the map of one target port.
func (c *Conn) expireTarget(s rules.Sticky, target uint16) (int, error) {
	var gone [][]byte
	family := s.Family.Number()
	err := c.DumpElements(family, nftables.TableName, s.MapName(target), func(element []byte) error {
		e := parseElement(element)
		addr, ok := netip.AddrFromSlice(e.data)
		backend := netip.AddrPortFrom(addr, target)
		if _, serves := slices.BinarySearchFunc(s.Backends, backend, service.Backend.Compare); ok && !serves {
			gone = append(gone, slices.Clone(e.key))
		}
		return nil
	})
	if err != nil && !errors.Is(err, netlink.ErrInterrupted) {
		return 0, err
	}
	err = c.deleteClients(s, target, gone)
	if errors.Is(err, unix.ENOENT) {
		// The whole batch failed because one of the clients timed out meanwhile.
		err = nil
		for i := range gone {
			if one := c.deleteClients(s, target, gone[i:i+1]); !errors.Is(one, unix.ENOENT) {
				err = errors.Join(err, one)
			}
		}
	}
	return len(gone), err
}

// deleteClients deletes clients from the map of a target port, each with a message of its own.
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
	return c.Commit(b)
}
