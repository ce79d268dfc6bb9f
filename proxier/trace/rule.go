package trace

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// ruleText is a rule in words, and its comment.
type ruleText struct{ rule, comment string }

// describe adds the text of its rule to a step.
func (t *Trace) describe(s *Step, known map[Step]ruleText) error {
	if s.Handle == 0 {
		return nil
	}
	id := Step{Chain: s.Chain, Handle: s.Handle}
	text, ok := known[id]
	if !ok {
		var err error
		if text, err = t.readRule(s.Chain, s.Handle); err != nil {
			return err
		}
		known[id] = text
	}
	s.Rule, s.Comment = text.rule, text.comment
	return nil
}

// readRule asks the kernel for a rule.
func (t *Trace) readRule(c Chain, handle uint64) (text ruleText, err error) {
	var w netlink.Writer
	family := familyNumber(c.Family)
	w.Message(unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETRULE, unix.NLM_F_ACK, family)
	w.String(unix.NFTA_RULE_TABLE, c.Table)
	w.String(unix.NFTA_RULE_CHAIN, c.Name)
	w.U64(unix.NFTA_RULE_HANDLE, handle)
	err = t.conn.Request(&w, func(attributes []byte) error {
		for typ, v := range netlink.Attrs(attributes) {
			switch typ {
			case unix.NFTA_RULE_EXPRESSIONS:
				text.rule = rule(family, v)
			case unix.NFTA_RULE_USERDATA:
				text.comment = comment(v)
			}
		}
		return nil
	})
	if errors.Is(err, unix.ENOENT) {
		return ruleText{rule: "a rule that has been deleted meanwhile"}, nil
	}
	if err != nil {
		return text, fmt.Errorf("read rule %d of chain %s: %w", handle, c, err)
	}
	return text, nil
}

// comment returns the comment in the user data of a rule, where nft and iptables-nft keep it: of
// libnftnl's attributes the one of type 0.
func comment(userdata []byte) string {
	for len(userdata) >= 2 {
		n := 2 + int(userdata[1])
		if n > len(userdata) {
			break
		}
		if userdata[0] == 0 {
			return netlink.String(userdata[2:n])
		}
		userdata = userdata[n:]
	}
	return ""
}
