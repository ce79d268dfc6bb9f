package takeover

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// attempts bounds how often Remove searches and removes. Once is enough unless other processes add and delete
// chains all the time: then a list of chains may lack some.
const attempts = 5

// kubeProxyTable is the table of kube-proxy's nftables mode, in the families ip and ip6.
const kubeProxyTable = "kube-proxy"

// KubeProxy is what kube-proxy has in nftables: the tables of its nftables mode, and the chains of its
// iptables and IPVS modes if the iptables command is iptables-nft.
type KubeProxy struct {
	Tables []string         // "ip kube-proxy"
	Chains []KubeProxyChain // only kube-proxy uses them
	Kept   []KubeProxyChain // other programs need them
}

// KubeProxyChain is a chain of kube-proxy in a table that it shares with other programs.
type KubeProxyChain struct {
	Table string // "ip nat"
	Name  string
	Why   string // of a chain that is kept: what needs it
}

// Any reports whether there is anything to remove.
func (k *KubeProxy) Any() bool { return len(k.Tables)+len(k.Chains) > 0 }

// String names what can be removed: "table ip kube-proxy, chains KUBE-* of table ip nat (12)".
func (k *KubeProxy) String() string {
	var parts []string
	for _, t := range k.Tables {
		parts = append(parts, "table "+t)
	}
	var tables []string
	count := map[string]int{}
	for _, c := range k.Chains {
		if count[c.Table]++; count[c.Table] == 1 {
			tables = append(tables, c.Table)
		}
	}
	for _, t := range tables {
		parts = append(parts, fmt.Sprintf("chains KUBE-* of table %s (%d)", t, count[t]))
	}
	return strings.Join(parts, ", ")
}

// isKubeProxyChain reports whether a chain in a table of iptables is kube-proxy's, in iptables or IPVS mode,
// up to release 1.37. Other programs have chains with similar names: the kubelet KUBE-FIREWALL,
// KUBE-MARK-DROP, KUBE-IPTABLES-HINT and KUBE-KUBELET-CANARY; kube-router KUBE-ROUTER-, KUBE-NWPLCY- and
// KUBE-POD-FW-.
func isKubeProxyChain(name string) bool {
	switch name {
	case "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-NODE-PORT",
		"KUBE-LOAD-BALANCER", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-FORWARD",
		"KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL",
		"KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER", "KUBE-PROXY-CANARY":
		return true
	}
	prefixes := []string{"KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-"}
	return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// Find returns the tables and chains of kube-proxy in nftables.
func Find(c *netlink.Conn) (*KubeProxy, error) {
	found, _, err := find(c)
	return found, err
}

// Remove removes kube-proxy's tables and chains in one transaction, together with the rules of other chains
// that lead to kube-proxy's chains. All else stays as it is. A chain of kube-proxy that another program needs
// stays too, with the chains that it leads to: a chain that a CNI plugin's chain jumps to, and KUBE-FORWARD
// where forwarded packets are dropped unless a rule accepts them. Remove returns what it found.
func Remove(c *netlink.Conn) (*KubeProxy, error) {
	all := &KubeProxy{}
	for range attempts {
		found, b, err := find(c)
		if err == nil {
			err = c.Commit(b)
		}
		if err != nil {
			return nil, fmt.Errorf("remove kube-proxy's rules: %w", err)
		}
		all.Tables = append(all.Tables, found.Tables...)
		all.Chains = append(all.Chains, found.Chains...)
		all.Kept = found.Kept
		if !found.Any() {
			break
		}
	}
	return all, nil
}

// find returns what kube-proxy has and the batch that removes it. The kernel refuses the batch if another
// process meanwhile uses what it removes, or has removed it.
func find(c *netlink.Conn) (*KubeProxy, *netlink.Batch, error) {
	tables, err := kernel.ListTables(c)
	if err != nil {
		return nil, nil, err
	}
	found, b := &KubeProxy{}, &netlink.Batch{}
	var what []string // each message in words, for errors
	b.Describe = func(msg, _ int) string { return what[min(msg, len(what)-1)] }
	b.Begin()
	for _, t := range tables {
		r := removal{conn: c, batch: b, what: &what, table: t, found: found}
		switch {
		case t.Family != service.IPv4.String() && t.Family != service.IPv6.String():
		case t.Name == kubeProxyTable:
			r.deleteTable()
		case isOfIPTables(t.Name) && slices.ContainsFunc(t.Chains, ofKubeProxy):
			if err := r.deleteChains(); err != nil {
				return nil, nil, err
			}
		}
	}
	return found, b, nil
}

// isOfIPTables reports whether kube-proxy in iptables or IPVS mode has chains in a table of that name.
func isOfIPTables(table string) bool {
	return slices.Contains([]string{"nat", "filter", "mangle"}, table)
}

func ofKubeProxy(c kernel.TableChain) bool { return c.Hook == nil && isKubeProxyChain(c.Name) }

// removal appends the messages that remove kube-proxy from one table to a batch.
type removal struct {
	conn  *netlink.Conn
	batch *netlink.Batch
	what  *[]string
	table kernel.Table
	found *KubeProxy
}

func (r *removal) family() uint8 {
	if r.table.Family == service.IPv6.String() {
		return service.IPv6.Number()
	}
	return service.IPv4.Number()
}

func (r *removal) name() string { return r.table.Family + " " + r.table.Name }

func (r *removal) deleteTable() {
	r.message(unix.NFT_MSG_DELTABLE, "delete table "+r.name())
	r.batch.String(unix.NFTA_TABLE_NAME, r.table.Name)
	r.found.Tables = append(r.found.Tables, r.name())
}

func (r *removal) message(msgType uint16, what string) {
	r.batch.Message(msgType, 0, r.family())
	*r.what = append(*r.what, what)
}

// deleteChains deletes the chains that no other program needs, and the rules of other chains that lead to
// them.
func (r *removal) deleteChains() error {
	jumps, err := r.otherJumps()
	if err != nil {
		return err
	}
	kept, err := r.findKept(jumps)
	if err != nil {
		return err
	}
	deleted := map[string]bool{}
	for _, chain := range r.table.Chains {
		switch why, keep := kept[chain.Name]; {
		case keep:
			r.found.Kept = append(r.found.Kept, KubeProxyChain{r.name(), chain.Name, why})
		case ofKubeProxy(chain):
			deleted[chain.Name] = true
			r.found.Chains = append(r.found.Chains, KubeProxyChain{Table: r.name(), Name: chain.Name})
		}
	}
	for _, j := range jumps {
		if slices.ContainsFunc(j.targets, func(t string) bool { return deleted[t] }) {
			r.deleteRules(j.chain, j.handle)
		}
	}
	// The kernel refuses to delete a chain while a rule leads to it.
	for _, chain := range r.table.Chains {
		if deleted[chain.Name] {
			r.deleteRules(chain.Name, 0)
		}
	}
	for _, chain := range r.table.Chains {
		if deleted[chain.Name] {
			r.message(unix.NFT_MSG_DELCHAIN, "delete chain "+r.name()+" "+chain.Name)
			r.batch.String(unix.NFTA_CHAIN_TABLE, r.table.Name)
			r.batch.String(unix.NFTA_CHAIN_NAME, chain.Name)
		}
	}
	return nil
}

// otherJumps returns the rules that jump or go to a chain, from the chains of other programs.
func (r *removal) otherJumps() (jumps []jump, err error) {
	for _, chain := range r.table.Chains {
		if ofKubeProxy(chain) {
			continue
		}
		more, err := listJumps(r.conn, r.family(), r.table.Name, chain.Name)
		if err != nil {
			return nil, err
		}
		jumps = append(jumps, more...)
	}
	return jumps, nil
}

// deleteRules deletes the rule with a handle, or all rules of the chain if the handle is 0.
func (r *removal) deleteRules(chain string, handle uint64) {
	r.message(unix.NFT_MSG_DELRULE, "delete rules of chain "+r.name()+" "+chain)
	r.batch.String(unix.NFTA_RULE_TABLE, r.table.Name)
	r.batch.String(unix.NFTA_RULE_CHAIN, chain)
	if handle != 0 {
		r.batch.U64(unix.NFTA_RULE_HANDLE, handle)
	}
}

// findKept returns kube-proxy's chains that must stay, and why.
func (r *removal) findKept(jumps []jump) (map[string]string, error) {
	kept := map[string]string{}
	theirs, base := map[string]bool{}, map[string]bool{}
	for _, chain := range r.table.Chains {
		theirs[chain.Name], base[chain.Name] = ofKubeProxy(chain), chain.Hook != nil
	}
	var unread []string // kept chains whose rules are still to be read
	keep := func(name, why string) {
		if _, known := kept[name]; theirs[name] && !known {
			kept[name] = why
			unread = append(unread, name)
		}
	}
	for _, chain := range r.table.Chains {
		if chain.Hook != nil && chain.Hook.Name == "forward" && chain.Drop {
			keep("KUBE-FORWARD", "the policy of chain "+chain.Name+" is drop")
		}
	}
	for len(jumps) > 0 || len(unread) > 0 {
		for _, j := range jumps {
			for _, t := range j.targets {
				if !base[j.chain] {
					keep(t, "chain "+j.chain+" jumps to it")
				}
			}
		}
		jumps = nil
		if len(unread) > 0 {
			var err error
			if jumps, err = listJumps(r.conn, r.family(), r.table.Name, unread[0]); err != nil {
				return nil, err
			}
			unread = unread[1:]
		}
	}
	return kept, nil
}
