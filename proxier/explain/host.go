package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/conntrack"
	"github.com/nftproxy/nftproxy/proxier/host"
	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Host is what decides on a node, besides nftproxy's rules, what becomes of a connection.
type Host struct {
	NotForwarding    map[service.Family][]string // sysctls that keep the node from forwarding packets
	BridgesCallRules map[service.Family]bool     // see host.BridgesCallRules
	Ports            map[netip.Addr]host.BridgePort
	Flows            conntrack.Usage
	Losses           conntrack.Losses
	Tables           []kernel.Table    // of all programs
	Marks            []kernel.MarkRule // of other programs, on the bit that nftproxy uses
	Unread           error             // why the rest is missing
}

// ReadHost reads what it can in the network namespace of the calling thread. It reads the rules of all
// programs, to find those that change the mark by which nftproxy masquerades.
func ReadHost(mark uint32) *Host {
	h := &Host{
		NotForwarding: map[service.Family][]string{}, BridgesCallRules: map[service.Family]bool{},
	}
	var unused error
	if h.Flows, unused = conntrack.ReadUsage("/proc/sys/net"); unused == nil {
		h.Losses, h.Unread = conntrack.ReadLosses()
	}
	for _, f := range service.Families() {
		h.NotForwarding[f] = host.NotForwarding([]service.Family{f})
		h.BridgesCallRules[f] = host.BridgesCallRules(f)
	}
	var err error
	h.Ports, err = host.BridgePorts()
	h.Unread = errors.Join(h.Unread, err, h.readTables(mark))
	return h
}

func (h *Host) readTables(mark uint32) error {
	conn, err := netlink.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	if h.Tables, err = kernel.ListTables(conn); err != nil {
		return err
	}
	h.Marks, err = kernel.MarkRules(conn, h.Tables, mark)
	return err
}

// obstacles adds a line for what else decides on this node what becomes of a connection that the rules lead
// to an endpoint, and records what certainly keeps it from arriving.
func (x *explainer) obstacles() {
	h := x.Host
	if h == nil || x.report.Verdict != verdictEndpoint {
		return
	}
	family := service.FamilyOf(x.frontend.Addr)
	if sysctls := h.NotForwarding[family]; len(sysctls) > 0 && x.forwarded() {
		x.obstacle("forwarding", "off", "packets do not pass through this node: set the sysctl to 1",
			"this node does not forward packets: "+sysctls[0]+" is 0")
	}
	x.conntrack()
	x.bridge()
	x.marks()
	x.chainsAfter()
	if h.Unread != nil {
		x.report.add("others", "not read", h.Unread.Error())
	}
}

// bridge adds a line if the client is behind a bridge that keeps the connection, or its answer, from passing
// the rules of this node.
func (x *explainer) bridge() {
	calls := x.Host.BridgesCallRules[service.FamilyOf(x.frontend.Addr)]
	p, ok := x.Host.Ports[x.client.addr]
	switch {
	case !ok:
	case calls && !p.Hairpin && x.reachesItself():
		x.obstacle("hairpin", "off", fmt.Sprintf("port %s of bridge %s sends no packet back to where it came "+
			"from: set hairpinMode in the configuration of the CNI plugin", p.Name, p.Bridge),
			"the bridge does not send it back to the pod that it came from")
	case !calls && x.answersDirectly(p):
		x.obstacle("bridge", "calls no rules", fmt.Sprintf("the pods on bridge %s answer each other within it, and "+
			"not through this node: load br_netfilter, and set net.bridge.bridge-nf-call-iptables to 1", p.Bridge),
			"the answer does not pass this node")
	}
}

// answersDirectly reports whether all connections go to other pods in the subnet of the client's bridge. Their
// answers have the address of the endpoint, unless the source of the connection is masqueraded.
func (x *explainer) answersDirectly(p host.BridgePort) bool {
	for _, e := range x.report.Endpoints {
		addr := backendOf(e).Addr()
		near := func(s netip.Prefix) bool { return s.Contains(addr) && s.Contains(x.client.addr) }
		if e.Source != "kept" || x.local(addr) || !slices.ContainsFunc(p.Subnets, near) {
			return false
		}
	}
	return true
}

// conntrack adds a line if the table of connection tracking is or was full.
func (x *explainer) conntrack() {
	h := x.Host
	use := fmt.Sprintf("%d of at most %d flows: raise conntrack.maxPerCore or conntrack.min, or look for who "+
		"opens them", h.Flows.Flows, h.Flows.Most)
	switch {
	case h.Flows.Full():
		x.obstacle("conntrack", "full", use, "the table of connection tracking is full")
	case h.Flows.NearlyFull():
		x.doubt("conntrack", "nearly full", use, "the table of connection tracking is nearly full")
	case h.Losses.Dropped > 0:
		x.report.add("conntrack", "has dropped", fmt.Sprintf("%d packets of new connections since the boot, %d of "+
			"them because another flow has the same addresses and ports", h.Losses.Dropped, h.Losses.Insert))
	}
}

// obstacle adds a line for an obstacle, which the end of the verdict repeats in a few words.
func (x *explainer) obstacle(subject, result, reason, but string) {
	x.report.add(subject, result, reason)
	x.report.Obstacles = append(x.report.Obstacles, but)
}

// forwarded reports whether the packets of some connections pass through the node: neither side is the node.
func (x *explainer) forwarded() bool {
	for _, e := range x.report.Endpoints {
		if addr := backendOf(e).Addr(); !x.local(x.client.addr) && !x.local(addr) {
			return true
		}
	}
	return false
}

// reachesItself reports whether all connections go to the client itself.
func (x *explainer) reachesItself() bool {
	for _, e := range x.report.Endpoints {
		if backendOf(e).Addr() != x.client.addr {
			return false
		}
	}
	return true
}

// marks adds a line for rules of other programs that change the bit by which nftproxy masquerades. Whether a
// packet meets them is not known.
func (x *explainer) marks() {
	family := service.FamilyOf(x.frontend.Addr)
	var set, cleared []string
	for _, m := range x.Host.Marks {
		where := "chain " + m.Chain + " of table " + m.Family + " " + m.Table
		switch {
		case !ofFamily(m.Family, family):
		case m.Sets:
			set = append(set, where)
		default:
			cleared = append(cleared, where)
		}
	}
	bit := fmt.Sprintf("0x%08x", x.Environment.Config.MasqueradeMark)
	const by = ", by which nftproxy asks the kernel to masquerade"
	if len(set) > 0 && x.report.Source == "kept" {
		x.doubt("mark", "set by others", join(set)+" sets bit "+bit+by,
			"another program may masquerade it by nftproxy's mark")
	}
	if len(cleared) > 0 && x.report.Source == "masqueraded" {
		x.doubt("mark", "cleared by others", join(cleared)+" clears bit "+bit+by,
			"another program may clear nftproxy's mark")
	}
}

// doubt adds a line for what may change the answer, which the end of the verdict repeats in a few words.
func (x *explainer) doubt(subject, result, reason, but string) {
	x.report.add(subject, result, reason)
	x.report.Doubts = append(x.report.Doubts, but)
}

func ofFamily(table string, f service.Family) bool { return table == "inet" || table == f.String() }

// chainsAfter adds a line for the chains of other programs that see the connection after nftproxy has
// translated it. Any of them may drop it, or give it another source.
func (x *explainer) chainsAfter() {
	family := service.FamilyOf(x.frontend.Addr)
	hooks := map[string]bool{"postrouting": true, "forward": x.forwarded(), "output": x.local(x.client.addr)}
	for _, e := range x.report.Endpoints {
		hooks["input"] = hooks["input"] || x.local(backendOf(e).Addr())
	}
	var list []string
	for _, t := range x.Host.Tables {
		if t.Name == nftables.TableName || !ofFamily(t.Family, family) {
			continue
		}
		for _, c := range t.Chains {
			if c.Hook == nil || !hooks[c.Hook.Name] || c.Hook.Name == "output" && c.Hook.Priority < -100 {
				continue
			}
			about := c.Hook.Name
			name := fmt.Sprintf("%s %s %s", t.Family, t.Name, c.Name)
			if c.Drop {
				about += ", policy drop"
				x.report.Doubts = append(x.report.Doubts, "chain "+name+" drops what no rule in it accepts")
			}
			list = append(list, name+" ("+about+")")
		}
	}
	if len(list) > 0 {
		x.report.add("others", "not evaluated", "chains of other programs that see the connection after nftproxy: "+
			join(list))
	}
}

// but returns what the verdict has to say besides: "" or words that begin with a comma.
func (x *explainer) but() string {
	all := append(append([]string{}, x.report.Obstacles...), x.report.Doubts...)
	if len(all) == 0 {
		return ""
	}
	return ", but " + strings.Join(all, "; and ")
}
