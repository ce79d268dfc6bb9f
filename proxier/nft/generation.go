package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/netfilter"
)

// Generation returns the number of the ruleset of this network namespace: every transaction that changes anything
// in any table, by whomever, moves it by one. It is never 0. Asking is one small message.
//
// The process that the kernel names in its answer is the one that asks, not the one that changed something.
func (c *Conn) Generation() (uint32, error) {
	var generation uint32
	err := c.request(unix.NFT_MSG_GETGEN, unix.NLM_F_ACK, unix.AF_UNSPEC, "", "", func(attributes []byte) error {
		for typ, v := range netfilter.Attrs(attributes) {
			if typ == unix.NFTA_GEN_ID && len(v) == 4 {
				generation = binary.BigEndian.Uint32(v)
			}
		}
		return nil
	})
	if err == nil && generation == 0 {
		err = errors.New("not in the answer")
	}
	if err != nil {
		return 0, fmt.Errorf("read nftables generation: %w", err)
	}
	return generation, nil
}
