package rules_test

import (
	"slices"
	"testing"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// pickCase is a case of TestPick for node n1 in zone a.
type pickCase struct {
	name           string
	node           service.Node
	endpoints      []service.Endpoint
	cluster, local string
	anywhere       bool
}

// on returns an endpoint from flags: R ready, S serving, T terminating.
func on(node, backend, flags string) service.Endpoint {
	has := func(r rune) bool { return slices.Contains([]rune(flags), r) }
	return service.Endpoint{
		Backend: backendList(backend)[0], Node: node,
		Ready: has('R'), Serving: has('S'), Terminating: has('T'),
	}
}

// zones returns the endpoint with hints for zones, nodes with hints for nodes.
func zones(e service.Endpoint, hints ...string) service.Endpoint { e.ZoneHints = hints; return e }
func nodes(e service.Endpoint, hints ...string) service.Endpoint { e.NodeHints = hints; return e }

func list(endpoints ...service.Endpoint) []service.Endpoint { return endpoints }

func TestPick(t *testing.T) {
	for _, tt := range slices.Concat(readinessCases(), zoneCases(), nodeHintCases()) {
		t.Run(tt.name, func(t *testing.T) {
			cluster, local, anywhere := rules.Pick(tt.endpoints, service.IPv4, tt.node)
			checkLines(t, "cluster", backendStrings(backendList(tt.cluster)), backendStrings(cluster))
			checkLines(t, "local", backendStrings(backendList(tt.local)), backendStrings(local))
			if anywhere != tt.anywhere {
				t.Errorf("anywhere = %t, want %t", anywhere, tt.anywhere)
			}
		})
	}
}

const (
	ep1 = "10.1.0.1:80"
	ep2 = "10.1.0.2:80"
	ep3 = "10.1.0.3:80"
	ep4 = "10.1.0.4:80"
)

// readinessCases are about conditions and localness.
func readinessCases() []pickCase {
	n1 := service.Node{Name: "n1"}
	return []pickCase{
		{"none", n1, nil, "", "", false},
		{"not ready, not serving", n1, list(on("n1", ep1, "")), "", "", false},
		{"serving but not terminating is not a fallback", n1, list(on("n1", ep1, "S")), "", "", false},
		{"terminating but not serving is not a fallback", n1, list(on("n1", ep1, "T")), "", "", false},
		{"ready and not ready", n1, list(on("n2", ep1, "RS"), on("n2", ep2, "")), ep1, "", true},
		{"ready though terminating (publishNotReadyAddresses)", n1,
			list(on("n2", ep1, "RST")), ep1, "", true},
		{"draining is left alone while one is ready", n1,
			list(on("n2", ep1, "RS"), on("n2", ep2, "ST")), ep1, "", true},
		{"draining here, and the address is reused there", n1,
			list(on("n1", ep1, "ST"), on("n2", ep1, "RS")), ep1, "", true},
		{"reused, in the other order", n1, list(on("n2", ep1, "RS"), on("n1", ep1, "ST")), ep1, "", true},
		{"draining there, and the address is reused here", n1,
			list(on("n2", ep1, "ST"), on("n1", ep1, "RS")), ep1, ep1, true},
		{"reused, not ready yet", n1, list(on("n1", ep1, "ST"), on("n2", ep1, "")), "", "", false},
		{"ready though terminating, and reused", n1,
			list(on("n1", ep1, "RST"), on("n2", ep1, "S")), "", "", false},
		{"another port of a draining address", n1,
			list(on("n1", ep1, "ST"), on("n2", "10.1.0.1:81", "RS")), "10.1.0.1:81", ep1, true},
		{"draining twice", n1, list(on("n1", ep1, "ST"), on("n2", ep1, "ST")), ep1, ep1, true},
		{"all draining", n1,
			list(on("n1", ep1, "ST"), on("n2", ep2, "ST"), on("n2", ep3, "T")), ep1 + " " + ep2, ep1, true},
		{"ready here and there", n1,
			list(on("n1", ep1, "RS"), on("n2", ep2, "RS")), ep1 + " " + ep2, ep1, true},
		{"ready there only", n1, list(on("n2", ep1, "RS")), ep1, "", true},
		{"ready there, draining here", n1, list(on("n2", ep1, "RS"), on("n1", ep2, "ST")), ep1, ep2, true},
		{"ready here, draining here", n1, list(on("n1", ep1, "RS"), on("n1", ep2, "ST")), ep1, ep1, true},
		{"draining there only", n1, list(on("n2", ep1, "ST")), ep1, "", true},
		{"an endpoint without node is nowhere, also for a node without name", service.Node{},
			list(on("", ep1, "RS")), ep1, "", true},
		{"sorted, duplicates merged", n1,
			list(on("n1", ep2, "RS"), on("n1", ep1, "RS"), on("n1", ep2, "RS")),
			ep1 + " " + ep2, ep1 + " " + ep2, true},
		{"ready in one slice, draining in the other", n1,
			list(on("n1", ep1, "ST"), on("n1", ep1, "RS")), ep1, ep1, true},
		{"same address on two ports", n1,
			list(on("n1", "10.1.0.1:81", "RS"), on("n1", ep1, "RS")),
			ep1 + " 10.1.0.1:81", ep1 + " 10.1.0.1:81", true},
		{"the other family does not count", n1, list(on("n1", "[fd00::1]:80", "RS")), "", "", false},
	}
}

// zoneCases are about hints for zones.
func zoneCases() []pickCase {
	in := func(zone string) service.Node { return service.Node{Name: "n1", Zone: zone} }
	four := []service.Endpoint{
		zones(on("n2", ep1, "R"), "a"), zones(on("n1", ep2, "R"), "b"),
		zones(on("n2", ep3, "R"), "c"), zones(on("n1", ep4, "R"), "a"),
	}
	all := ep1 + " " + ep2 + " " + ep3 + " " + ep4
	missing := slices.Clone(four)
	missing[2] = zones(missing[2])
	unready := slices.Clone(four)
	unready[2] = on("n2", ep3, "")
	draining := slices.Clone(four)
	draining[2] = on("n2", ep3, "ST")
	return []pickCase{
		{"zone hints choose, not for local", in("a"), four, ep1 + " " + ep4, ep2 + " " + ep4, true},
		{"no hint for our zone", in("d"), four, all, ep2 + " " + ep4, true},
		{"zone not known", in(""), four, all, ep2 + " " + ep4, true},
		{"zone not known, empty hints", in(""),
			list(zones(on("n2", ep1, "R"), ""), zones(on("n2", ep2, "R"), "a")), ep1 + " " + ep2, "", true},
		{"one without hint", in("a"), missing, all, ep2 + " " + ep4, true},
		{"an unready one without hint does not matter", in("a"),
			unready, ep1 + " " + ep4, ep2 + " " + ep4, true},
		{"a draining one without hint does not matter", in("a"),
			draining, ep1 + " " + ep4, ep2 + " " + ep4, true},
		{"several hints on one", in("c"),
			list(zones(on("n2", ep1, "R"), "a", "c"), zones(on("n2", ep2, "R"), "b", "d")), ep1, "", true},
		{"the only hint for our zone is on an unready one", in("a"),
			list(zones(on("n2", ep1, ""), "a"), zones(on("n2", ep2, "R"), "b")), ep2, "", true},
		{"all draining: hints do not count", in("a"),
			list(zones(on("n2", ep1, "ST"), "a"), zones(on("n2", ep2, "ST"), "b")),
			ep1 + " " + ep2, "", true},
		{"hints of the other family do not count", in("a"),
			list(zones(on("n2", ep1, "R"), "a"), zones(on("n2", ep2, "R"), "b"),
				on("n2", "[fd00::1]:80", "R")), ep1, "", true},
	}
}

// nodeHintCases are about hints for nodes, which are preferred.
func nodeHintCases() []pickCase {
	n1 := service.Node{Name: "n1", Zone: "a"}
	both := []service.Endpoint{
		nodes(zones(on("n1", ep1, "R"), "a"), "n1"), nodes(zones(on("n2", ep2, "R"), "a"), "n2"),
		nodes(zones(on("n3", ep3, "R"), "b"), "n3"),
	}
	missing := slices.Clone(both)
	missing[2] = nodes(missing[2])
	return []pickCase{
		{"node hints before zone hints", n1, both, ep1, ep1, true},
		{"no hint for our node: zone hints", service.Node{Name: "n9", Zone: "a"},
			both, ep1 + " " + ep2, "", true},
		{"one without node hint: zone hints", n1, missing, ep1 + " " + ep2, ep1, true},
		{"neither for node nor zone", service.Node{Name: "n9", Zone: "z"},
			both, ep1 + " " + ep2 + " " + ep3, "", true},
		{"a hint for our node need not be here", n1,
			list(nodes(on("n2", ep1, "R"), "n1"), nodes(on("n1", ep2, "R"), "n2")), ep1, ep2, true},
	}
}
