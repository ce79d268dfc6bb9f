package explain

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/interpreter"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Kernel is what the kernel has: a *kernel.Reader.
type Kernel interface {
	interpreter.Tables
	// Expires returns when an entry of the map of clients ends, if Element has returned it.
	Expires(nftables.ElementID) (time.Duration, bool)
}

func backendOf(e Endpoint) netip.AddrPort {
	addr, _ := netip.ParseAddr(e.Address)
	return netip.AddrPortFrom(addr, e.Port)
}

// compare compares the chains and elements of the frontend that are wanted with those in the kernel. unread is
// why the kernel's rules could not be evaluated.
func (x *explainer) compare(unread error) error {
	if x.kernel == nil {
		x.report.add("kernel", "not read", "the answer is what the manifests want")
		return nil
	}
	if unread != nil {
		x.differ("the rules in the kernel cannot be evaluated: %v", unread)
	}
	elements, err := x.compareElements()
	if err != nil {
		return err
	}
	chains, err := x.compareChains()
	if err != nil {
		return err
	}
	if n := len(x.report.Differences); n > 0 {
		count, until := fmt.Sprintf("%d differences", n), "with its next sync"
		if n == 1 {
			count = "1 difference"
		}
		if x.Alone != nil {
			until = "when it runs again"
		}
		x.report.add("kernel", count, "the kernel does not have what is wanted; nftproxy repairs it "+until)
		for _, d := range x.report.Differences[:min(n, maxLines)] {
			x.report.add("kernel", "differs", d)
		}
		return nil
	}
	x.report.add("kernel", "as wanted", fmt.Sprintf("%d chains and %d elements of this frontend compared",
		chains, elements))
	return nil
}

func (x *explainer) differ(format string, args ...any) {
	x.report.Differences = append(x.report.Differences, fmt.Sprintf(format, args...))
}

// compareElements returns the number of elements that are wanted.
func (x *explainer) compareElements() (int, error) {
	lookup := x.Ruleset.Lookup()
	family := service.FamilyOf(x.frontend.Addr)
	own := lookup.Frontend(x.frontend)
	for _, e := range own {
		if e.Set.Kind == nftables.Services {
			shape := nftables.ShapeElement(family, e.DataValues().Class, "")
			if wanted, ok, _ := lookup.Element(shape.ElementID); ok {
				own = append(own, wanted)
			}
		}
	}
	clusterIP := nftables.AddrElement(nftables.ClusterIPs, x.frontend.Addr, 1)
	if wanted, ok, _ := lookup.Element(clusterIP.ElementID); ok {
		own = append(own, wanted)
	}
	for _, e := range x.report.Endpoints {
		hairpin := nftables.AddrElement(nftables.Hairpin, backendOf(e).Addr(), 2)
		if wanted, ok, _ := lookup.Element(hairpin.ElementID); ok {
			own = append(own, wanted)
		}
	}
	for _, want := range own {
		got, found, err := x.kernel.Element(want.ElementID)
		if err != nil {
			return 0, fmt.Errorf("read the kernel: %w", err)
		}
		switch {
		case !found:
			x.differ("%s %s lacks { %s }", family, want.Set.Kind, want)
		case got.Data != want.Data || got.Chain != want.Chain:
			x.differ("%s %s has { %s }, want { %s }", family, want.Set.Kind, got, want)
		}
	}
	return len(own), x.surplus(lookup)
}

// surplus finds elements of the frontend that change its treatment and are not wanted.
func (x *explainer) surplus(lookup *rules.Lookup) error {
	for _, kind := range []nftables.SetKind{nftables.Services, nftables.Firewalled} {
		id := nftables.FrontendElement(kind, x.frontend).ElementID
		_, wanted, _ := lookup.Element(id)
		got, found, err := x.kernel.Element(id)
		if err != nil {
			return fmt.Errorf("read the kernel: %w", err)
		}
		if found && !wanted {
			x.differ("%s %s has { %s }, which is not wanted", id.Set.Family, kind, got)
		}
	}
	return nil
}

// compareChains returns the number of chains that the packet can meet. The kernel's reader knows only chains
// with the rules that nftproxy writes.
func (x *explainer) compareChains() (int, error) {
	family := service.FamilyOf(x.frontend.Addr)
	n := 0
	for _, chain := range x.Ruleset.Chains(family) {
		if entry, _, ok := x.Ruleset.Entry(x.frontend); !ok || !entry.Uses(chain.Name) {
			continue
		}
		n++
		if _, found, err := x.kernel.Chain(family, chain.Name); err != nil {
			x.differ("%v", err)
		} else if !found {
			x.differ("the kernel has no chain %s in table %s", chain.Name, family)
		}
	}
	return n, nil
}
