package proxier

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/desired"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestInterpreterAgreesWithTraffic evaluates the rules of each golden case on the packets of its traffic.yaml.
// TestKernelCases sends the same packets through the kernel, so both agree on who answers, and whom the
// endpoint sees as its client.
func TestInterpreterAgreesWithTraffic(t *testing.T) {
	for _, name := range cases(t, casesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(casesDir, name)
			config := configtest.Case(t, dir, filepath.Join(dir, "input.yaml"))
			build, err := desired.FromManifests(config, nil, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			tables := build(nil).Lookup()
			rows, err := lab.LoadTraffic(filepath.Join(dir, "traffic.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			bridge := labOptions(t, dir).Bridge
			for _, row := range rows {
				if row.To.Addr.Addr().IsLoopback() {
					continue // served without rules
				}
				outcomes, err := interpreter.Run(tables, isLabNode, packetOf(row, bridge))
				if err != nil {
					t.Errorf("%s: %v", row, err)
					continue
				}
				for _, wrong := range judge(row, outcomes) {
					t.Errorf("%s: %s", row, wrong)
				}
			}
		})
	}
}

// isLabNode reports whether the address is one of the node under test.
func isLabNode(a netip.Addr) bool {
	return a.IsLoopback() || lab.Owner(a) == "host-pod" || a == netip.MustParseAddr("10.244.1.1")
}

// packetOf returns the first packet of the requests of a row.
func packetOf(row lab.Row, bridge bool) interpreter.Packet {
	to := row.To.Addr
	p := interpreter.Packet{Dst: to.Addr(), Port: to.Port()}
	for _, protocol := range service.Protocols() {
		if protocol.String() == row.To.Proto {
			p.Protocol = protocol
		}
	}
	p.Src, _ = lab.Address(row.From, to.Addr())
	switch {
	case row.From == "node" && isLabNode(to.Addr()):
		p.Src = to.Addr() // the kernel's choice for a connection to itself
	case row.From == "node" || row.From == "host-pod":
	case bridge && (row.From == "pod-a" || row.From == "pod-b"):
		p.Interface = "cni0"
	case row.From == "pod-a" || row.From == "pod-b":
		p.Interface = "veth-" + row.From
	default:
		p.Interface = "eth0"
	}
	return p
}

// judge returns what of the outcomes differs from the row.
func judge(row lab.Row, outcomes []interpreter.Outcome) (wrong []string) {
	var by []string
	for _, o := range outcomes {
		verdict := o.Verdict
		if verdict == interpreter.Untouched {
			// It goes to the party that has the address, with or without a server, or is lost.
			owner := lab.Owner(row.To.Addr.Addr())
			if owner == "" && !row.Dropped ||
				owner != "" && !row.Refused && !slices.Equal(row.By, []string{owner}) {
				wrong = append(wrong, "the rules leave it as it is")
			}
			return wrong
		}
		if row.Refused != (verdict == interpreter.Refused) || row.Dropped != (verdict == interpreter.Dropped) {
			wrong = append(wrong, "the rules say "+verdict.String())
			continue
		}
		if verdict != interpreter.Translated {
			continue
		}
		by = append(by, lab.Owner(o.Endpoint.Addr()))
		kept := o.Masqueraded && row.Source == "unchanged"
		replaced := !o.Masqueraded && row.Source == "node" && row.From != "node"
		if kept || replaced {
			wrong = append(wrong, fmt.Sprintf("masqueraded: %t, want source %s", o.Masqueraded, row.Source))
		}
	}
	slices.Sort(by)
	want := slices.Sorted(slices.Values(row.By))
	if by = slices.Compact(by); !slices.Equal(by, want) {
		wrong = append(wrong, "answered by "+strings.Join(by, ", ")+", want "+strings.Join(want, ", "))
	}
	return wrong
}
