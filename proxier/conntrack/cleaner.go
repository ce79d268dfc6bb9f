// Package conntrack looks after the kernel's connection tracking on behalf of a proxy: it deletes flows that lead
// where they must not any more, and sets kube-proxy's sysctls.
//
// Rules decide where a flow goes once, with its first packet; later packets follow its entry in the connection
// tracking table. That is what TCP needs. A flow of UDP, or an SCTP association that is kept up by retransmissions,
// can go on for ever to an endpoint that does not exist, so its entry must go when the endpoint does.
package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Clean deletes all UDP and SCTP flows of the family to the frontends, except to the backends that they keep, and
// returns how many there were. What began before a frontend existed, and so was not translated, goes too. Frontends
// of another family or of TCP are ignored. A frontend given twice keeps what either of them keeps.
//
// Clean wants to be called after the rules were committed: what it deletes comes back with the next packet, by the
// rules there are then. Calling it for more frontends than have changed, even for all, deletes no more than it
// should. It costs one walk of the connection tracking table for each of the two protocols among the frontends: some
// 60 ms for 200,000 flows, and up to 350 ms if the frontends have no address in common or are IPv6.
//
// Flows of all zones are looked at, as kube-proxy does: the rules translate in whatever zone a packet is in.
//
// It needs CAP_NET_ADMIN. With an error there may be flows left, and calling it again is safe.
func Clean(family service.Family, stale []service.StaleFlows) (deleted int, err error) {
	return clean(family, stale, true)
}

// clean is Clean; unless it is filtered, the kernel is asked for all flows, as Linux before 5.8 answers in any case.
//
// Newer kernels (6.12 is one) also delete by filter, without a dump. That is not used. With IPv6 addresses it deletes
// all flows but those asked for, with SCTP those of every port (see filter); how many it deleted it does not say; and
// it is no faster, because nearly all the time goes into the walk of the table, which is the same.
func clean(family service.Family, stale []service.StaleFlows, filtered bool) (deleted int, err error) {
	var errs []error
	for _, protocol := range []service.Protocol{service.UDP, service.SCTP} {
		s := newSweep(family, protocol, stale)
		if len(s.frontends) == 0 {
			continue
		}
		f := filter{family: family}
		if filtered {
			f = s.filter()
		}
		n, err := run(s, f)
		deleted += n
		if err != nil {
			errs = append(errs, fmt.Errorf("delete stale %s flows of %s: %w", protocol, family, err))
		}
	}
	return deleted, errors.Join(errs...)
}

// run deletes what the sweep does not keep of the flows that pass the filter.
func run(s *sweep, f filter) (deleted int, err error) {
	socket, err := netlink.Open()
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	// Another socket, so that a dump of any size is worked off while it comes in.
	deletions, err := netlink.Open()
	if err != nil {
		return 0, err
	}
	defer deletions.Close()

	d := &deleter{socket: deletions, family: s.family}
	err = dump(socket, f, func(f *flow) error {
		if s.keeps(f) {
			return nil
		}
		return d.add(f)
	})
	err = errors.Join(err, d.flush())
	if d.refused > 0 {
		err = errors.Join(err, fmt.Errorf("%d of them refused: %w", d.refused, d.reason))
	}
	return d.deleted, err
}

// sweep says which flows of one protocol go.
type sweep struct {
	family    service.Family
	protocol  service.Protocol
	frontends map[netip.AddrPort]struct{}
	keep      map[pair]struct{}
}

type pair struct{ frontend, backend netip.AddrPort }

func newSweep(family service.Family, protocol service.Protocol, stale []service.StaleFlows) *sweep {
	s := &sweep{family, protocol, map[netip.AddrPort]struct{}{}, map[pair]struct{}{}}
	for _, st := range stale {
		if st.Frontend.Protocol != protocol || service.FamilyOf(st.Frontend.Addr) != family {
			continue
		}
		frontend := netip.AddrPortFrom(st.Frontend.Addr, st.Frontend.Port)
		s.frontends[frontend] = struct{}{}
		for _, backend := range st.Keep {
			s.keep[pair{frontend, backend}] = struct{}{}
		}
	}
	return s
}

// keeps reports whether a flow is none of those that go.
func (s *sweep) keeps(f *flow) bool {
	if _, ours := s.frontends[f.frontend]; !ours || f.protocol != s.protocol {
		return true
	}
	_, kept := s.keep[pair{f.frontend, f.backend}]
	return kept
}

// filter is what all frontends of the sweep have in common.
func (s *sweep) filter() filter {
	f := filter{family: s.family, protocol: s.protocol}
	first := true
	for frontend := range s.frontends {
		switch {
		case first:
			f.addr, f.port = frontend.Addr(), frontend.Port()
		default:
			if f.addr != frontend.Addr() {
				f.addr = netip.Addr{}
			}
			if f.port != frontend.Port() {
				f.port = 0
			}
		}
		first = false
	}
	return f
}
