package proof

import "slices"

// mutants returns mistakes that somebody may make in the source of the rules.
func mutants() []mutant {
	return slices.Concat(ruleMutants(), choiceMutants(), languageMutants(), changeMutants())
}

// ruleMutants are mistakes in chains.
func ruleMutants() []mutant {
	const e = "TestExhaustion"
	return []mutant{
		{"an external frontend keeps the source", "shape.go",
			"case k == ShapeExternal, k == ShapeCluster", "case k == ShapeCluster", e},
		{"the late chains come first", "chain.go", "priorityLate = -90", "priorityLate = -110", e},
		{"a late translation of the destination", "chain.go",
			"priorityDNAT = -100", "priorityDNAT = -98", "TestNeighbours"},
		{"an early translation of the destination", "chain.go",
			"priorityDNAT = -100", "priorityDNAT = -150", "TestNeighbours"},
		{"no translation for the node itself", "chain.go",
			`baseChain(f, "nat-output", "output", priorityDNAT, services),`, "", e},
		{"the node's packets are translated on input", "chain.go",
			`"nat-output", "output"`, `"nat-output", "input"`, "TestExhaustion"},
		{"no refusal for the node itself", "chain.go",
			`baseChain(f, "late-output", "output", priorityLate, late),`, "", e},
		{"packets of another proxy are refused", "chain.go", "nftables.HasSocket{}, nftables.Accept{}", "nftables.HasSocket{}", e},
		{"masquerade on input", "chain.go", `"nat-postrouting", "postrouting"`, `"nat-postrouting", "input"`, e},
		{"masquerade without a mark", "chain.go", "{nftables.HasMark{Mask: mark}, nftables.ClearMark", "{nftables.ClearMark", e},
		{"the mark leaves the host", "chain.go", "nftables.ClearMark{Mask: mark}, ", "", e},
		{"the mark of others is cleared", "chain.go", "nftables.ClearMark{Mask: mark}", "nftables.ClearMark{Mask: mark<<1}", e},
		{"the priority leaves the host", "chain.go",
			"{nftables.Translated{}, nftables.ClearPriority{}},", "", e},
		{"the priority of every packet is cleared", "chain.go",
			"{nftables.Translated{}, nftables.ClearPriority{}}", "{nftables.ClearPriority{}}", e},
		{"no masquerade for a pod that reaches itself", "chain.go",
			"hairpin, nftables.Masquerade{}}", "hairpin}", e},
		{"direct traffic of a pod to itself is masqueraded", "chain.go",
			"{nftables.Translated{}, hairpin,", "{hairpin,", e},
		{"hairpin compares the source only", "chain.go",
			"both := []nftables.Field{nftables.SrcAddr, nftables.DstAddr}",
			"both := []nftables.Field{nftables.SrcAddr, nftables.SrcAddr}", e},
		{"admitted sources are dropped", "chain.go", "nftables.AllowedSources.String(), Not: true", "nftables.AllowedSources.String()", e},
		{"source ranges of no effect", "chain.go", "			nftables.Drop{},\n", "			nftables.Accept{},\n", e},
		{"source ranges compare the destination", "chain.go",
			"nftables.DstPort, nftables.SrcAddr}", "nftables.DstPort, nftables.DstAddr}", e},
		{"ClusterIPs and service ranges are swapped", "chain.go",
			"Set: nftables.ServiceCIDRs.String()", "Set: nftables.ClusterIPs.String()", e},
		{"another port of a ClusterIP is dropped", "chain.go",
			"notLocal, nftables.Jump{Chain: chainNoPort}", "notLocal, nftables.Drop{}", e},
		{"an address that the host has bound is refused", "chain.go",
			"{clusterIP, notLocal, ", "{clusterIP, ", e},
		{"fib asks for the source", "chain.go", "Addr: nftables.DstAddr, Not: true", "Addr: nftables.SrcAddr, Not: true", e},
		{"TCP is refused by an ICMP error", "shape.go",
			"{nftables.IsProtocol{Protocol: service.TCP}, nftables.Reset{}},", "", e},
		{"UDP is refused by a reset", "shape.go",
			"{nftables.IsProtocol{Protocol: service.TCP}, nftables.Reset{}},\n\t\t{nftables.Reject{}},",
			"{nftables.Reset{}},", e},
		{"a Service without endpoints drops", "shape.go",
			"rules = refuseRules()", "rules = []nftables.Rule{{nftables.Drop{}}}", e},
		{"masqueradeAll of no effect", "shape.go", "case k == ShapeExternal, k == ShapeCluster && c.MasqueradeAll:",
			"case k == ShapeExternal:", e},
		{"pods are masqueraded and nobody else", "shape.go", "c.PodTraffic.match(f, true)", "c.PodTraffic.match(f, false)", e},
		{"the node keeps its source with policy Local", "shape.go",
			"return []nftables.Rule{{nftables.AddrLocal{Addr: nftables.SrcAddr}, mark}}", "return nil", e},
		{"pods reach local endpoints only", "shape.go",
			"rules = append(rules, nftables.Rule{pods, any})", "_ = pods", e},
		{"the node reaches local endpoints only", "shape.go",
			"rules = append(rules, nftables.Rule{nftables.AddrLocal{Addr: nftables.SrcAddr}, any})", "", e},
		{"no local endpoint, and all of them answer", "shape.go",
			"return append(rules, nftables.Rule{nftables.Drop{}})", "return append(rules, s.choose()...)", e},
		{"all endpoints are taken for local", "shape.go",
			"nftables.SlotKey(s.Locals), Map: nftables.LocalEndpoints", "nftables.SlotKey(s.N), Map: nftables.LocalEndpoints", e},
		{"the map of local endpoints is the other one", "shape.go",
			"Map: nftables.LocalEndpoints.String()", "Map: nftables.Endpoints.String()", e},
		{"one slot too few", "shape.go", "nftables.DNAT{Key: nftables.SlotKey(s.N)", "nftables.DNAT{Key: nftables.SlotKey(max(1, s.N-1))", e},
		{"one slot too many", "shape.go", "nftables.DNAT{Key: nftables.SlotKey(s.N)", "nftables.DNAT{Key: nftables.SlotKey(s.N+1)", e},
		{"two kinds of shapes have one number", "shape.go", "majorExternal = 0x4e00", "majorExternal = 0x4c00", e},
		{"numbers of local shapes without the local endpoints", "shape.go",
			"majorLocal|uint16(s.Locals)", "majorLocal", e},
	}
}

// choiceMutants are mistakes about who serves whom.
func choiceMutants() []mutant {
	const e = "TestExhaustion"
	return []mutant{
		{"a sticky client chooses anew", "affinity.go", "{nftables.Recall{Map: affinity}, remember, send},", "", e},
		{"a client is not remembered", "affinity.go",
			"{nftables.SetPriority{Key: nftables.SlotKey(n), Map: slots.String()}, remember, send},",
			"{nftables.SetPriority{Key: nftables.SlotKey(n), Map: slots.String()}, send},", e},
		{"a full map refuses", "affinity.go", "\t\t{send},\n", "", e},
		{"a client without its endpoint is not forgotten", "affinity.go",
			"{nftables.Forget{Map: affinity}},", "", e},
		{"a client is remembered in milliseconds", "affinity.go", "Timeout: timeout}", "Timeout: timeout / 1000}", e},
		{"endpoints that are not ready serve", "endpoints.go", "return ep.Ready && s.has(ep)", "return s.has(ep)", e},
		{"a missing family", "endpoints.go", "return service.FamilyOf(ep.Backend.Addr()) == s.family",
			"return service.IPv4 == s.family", e},
		{"terminating endpoints serve with ready ones", "endpoints.go",
			"	if s.drain {\n		return s.draining(ep)\n	}\n	return s.ready(ep)",
			"	return s.ready(ep) || s.draining(ep)", e},
		{"terminating endpoints never serve", "endpoints.go",
			"return !ep.Ready && ep.Serving && ep.Terminating && s.has(ep)", "return false", e},
		{"terminating endpoints serve that do not", "endpoints.go", "!ep.Ready && ep.Serving && ep", "!ep.Ready && ep", e},
		{"the node falls back for the cluster", "endpoints.go",
			"s.ready(ep) && s.here(ep) }) == 0", "s.ready(ep) }) == 0", e},
		{"a pod of no node is local", "endpoints.go", `ep.Node != "" && ep.Node == s.node.Name`, `ep.Node == "" || ep.Node == s.node.Name`, e},
		{"hints for zones before those for nodes", "endpoints.go", "case allNode && anyNode:", "case allNode && anyNode && !allZone:", e},
		{"hints count although one has none", "endpoints.go", "case allZone && anyZone:", "case anyZone:", e},
		{"hints for another zone leave nobody", "endpoints.go", "case allZone && anyZone:", "case allZone:", e},
		{"a reused address goes with its former pod", "endpoints.go",
			"return ep.Terminating && reused[ep.Backend]", "return reused[ep.Backend]", e},
		{"the internal policy is ignored", "compile.go", "if c.svc.InternalLocal {\n\t\tinternal", "if false {\n\t\tinternal", e},
		{"the external policy is the internal one", "compile.go",
			"if c.svc.ExternalLocal {\n\t\texternal", "if c.svc.InternalLocal {\n\t\texternal", e},
		{"the first of two equal ports does not count", "compile.go",
			"slices.ContainsFunc(svc.Ports[:i], same)", "slices.ContainsFunc(svc.Ports[i+1:], same)", e},
		{"no hairpins", "compile.go", "c.out.Hairpins = append(c.out.Hairpins, b.Addr())", "_ = b", e},
		{"no load-balancer IP for the node", "compile.go", "if slices.ContainsFunc(node.Addrs, admits) {", "if false && slices.ContainsFunc(node.Addrs, admits) {", e},
		{"none at all instead of none here", "target.go", "case len(backends) == 0:", "case false:", e},
		{"none here instead of none at all", "target.go",
			"case !anywhere:\n\t\treturn target{shape: Shape{Kind: ShapeReject}}\n\tcase",
			"case !anywhere:\n\t\treturn target{shape: Shape{Kind: ShapeDrop}}\n\tcase", e},
		{"an external IP before a ClusterIP", "ruleset.go", "return c.entry.Kind < d.entry.Kind", "return c.entry.Kind > d.entry.Kind", e},
		{"the younger Service has the frontend", "ruleset.go", "return a.Created.Before(b.Created)", "return b.Created.Before(a.Created)", e},
		{"external IPs lead where ClusterIPs do", "frontend.go", "g.to = &p.internal\n\tcase KindNodePort:", "g.to = &p.internal\n\tcase KindExternalIP:\n\t\tg.to = &p.internal\n\tcase KindNodePort:", e},
		{"the nodePort is the port", "frontend.go", "		g.port = p.NodePort\n", "		g.port = min(p.Port.Port, p.NodePort)\n", e},
		{"the ports of the node are served", "frontend.go", "if c.reserved(f) {", "if false {", e},
		{"source ranges restrict every frontend", "frontend.go", "c.restricted(g.ports.family) && c.loadBalancer(g, f)", "c.restricted(g.ports.family)", e},
		{"an unreadable source range restricts nobody", "frontend.go", "return c.svc.Restricted || len", "return len", e},
		{"a range within another one replaces it", "prefix.go", "n == 0 || !out[n-1].Contains(p.Addr())", "n == 0 || out[n-1].Contains(p.Addr())", e},
	}
}

// languageMutants are mistakes in what statements become.
func languageMutants() []mutant {
	const e = "TestExhaustion"
	return []mutant{
		{"the source is behind the destination", "nftables/field.go", "if field == DstAddr {", "if field == SrcAddr {", e},
		{"the source port is looked up", "nftables/field.go", "PayloadBaseTransportHeader, Offset: 2", "PayloadBaseTransportHeader, Offset: 0", e},
		{"registers overlap", "nftables/field.go", "offset += (field.Size(f) + 3) &^ 3", "offset += field.Size(f) &^ 3", e},
		{"setting the mark clears others", "nftables/mark.go", "return changeMark(^s.Mask, s.Mask)", "return changeMark(0, s.Mask)", e},
		{"any mark asks for masquerade", "nftables/mark.go", "return []expr.Any{load, bitwise(bits, 0),", "return []expr.Any{load, bitwise(^uint32(0), 0),", e},
		{"not equal is equal", "nftables/mark.go", "op = expr.CmpOpNeq", "op = expr.CmpOpEq", e},
		{"the status of source NAT", "nftables/match.go", "ctStatusDNAT = 1 << 5", "ctStatusDNAT = 1 << 4", e},
		{"fib of another type", "nftables/match.go", "unix.RTN_LOCAL", "unix.RTN_UNICAST", e},
		{"the beginning of an interface's name", "nftables/match.go", "b := make([]byte, max(unix.IFNAMSIZ, len(name)))\n\tcopy(b, name)\n\treturn b[:unix.IFNAMSIZ]", "return []byte(name)", e},
		{"the port in the other byte order", "nftables/element.go", "binary.BigEndian.PutUint16(p.buf[p.n:], port)", "binary.LittleEndian.PutUint16(p.buf[p.n:], port)", e},
		{"slots from one", "nftables/element.go", "e.key().frontend(f).number(uint32(slot))\n\te.data().addr(b.Addr())", "e.key().frontend(f).number(uint32(slot + 1))\n\te.data().addr(b.Addr())", e},
		{"the port is read from the next register", "nftables/lookup.go", "RegProtoMin: port, RegProtoMax: port,", "RegProtoMin: port + 1, RegProtoMax: port + 1,", e},
		{"the ICMP error of the other family", "nftables/verdict.go", "code = 4", "code = 3", e},
		{"TPROXY is the other way round", "nftables/socket.go", "compare(true, []byte{0xff", "compare(false, []byte{0xff", e},
	}
}

// changeMutants are mistakes in what a change writes.
func changeMutants() []mutant {
	const e = "TestTransitions"
	return []mutant{
		{"a slot with another endpoint is not deleted first", "delta.go",
			"if slot >= len(after) || after[slot] != b {", "if slot >= len(after) {", e},
		{"a slot without an endpoint stays", "delta.go",
			"if slot >= len(after) || after[slot] != b {", "if slot < len(after) && after[slot] != b {", e},
		{"a slot that is new is not written", "delta.go",
			"if slot >= len(before) || before[slot] != b {", "if slot < len(before) && before[slot] != b {", e},
		{"clients of a removed endpoint still go there", "delta.go", "if wanted[n] != b {", "if false {", e},
		{"a ClusterIP that is gone is still refused", "delta.go", "case was && !is:", "case false:", e},
		{"another port of a new ClusterIP is not refused", "delta.go", "case is && !was:", "case false:", e},
		{"a new shape has no number", "delta.go",
			"			d.element(old, exists, e)\n", "			_, _, _ = old, exists, e\n", e},
		{"the number of a frontend stays", "delta.go", "if !slices.Equal(had, wanted) {", "if before == &none || after == &none {", e},
		{"a frontend that is gone keeps its Service", "ruleset.go", "		r.disown(f)\n		delete(r.owners, f)\n", "", e},
		{"the loser does not get the frontend", "ruleset.go", "		r.own(f, next)\n", "		_ = next\n", e},
		{"an endpoint changes its slot with every change", "slots.go", "if !placed[at] && i < len(slots) {", "if false {", e},
	}
}
