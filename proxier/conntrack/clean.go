package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Clean deletes all UDP and SCTP flows of the family to the frontends, except flows to the backends that a
// frontend keeps, and returns how many flows it deleted. It also deletes UDP flows that started before a
// frontend existed, and so were not translated. It leaves such flows alone if the frontend is gone, because
// another program serves them, and if they are SCTP, because an association cannot move to another endpoint.
// It ignores frontends of another family or of TCP. If a frontend is given twice, Clean keeps the backends of
// both.
//
// Flows to draining backends that are idle end early, see drain.go: Clean deletes them or shortens their
// timeout.
//
// It also returns the frontends that are gone and still have flows to backends that they keep. Pass them
// again when such a backend may have ended.
//
// Call Clean after the rules were committed: the next packet of a deleted flow creates the flow again, by the
// rules of that moment. Clean deletes no more flows if the caller passes frontends that did not change, even
// all. It walks the connection tracking table once for each of the two protocols among the frontends. This
// takes 60 ms for 200,000 flows, and up to 350 ms if the frontends have no address in common or are IPv6.
//
// Like kube-proxy, Clean deletes flows of all zones: the rules translate packets of any zone.
//
// It needs CAP_NET_ADMIN. It ends when ctx does, within a part of a walk. After an error there may be flows
// left; it is safe to call Clean again.
func Clean(ctx context.Context, family service.Family, stale []service.StaleFlows) (
	deleted int, former []service.Frontend, err error) {
	return clean(ctx, family, stale, true)
}

// clean is Clean. Unless filtered is set it requests all flows of the family, which is the answer of Linux
// before 5.8 in any case.
//
// Newer kernels, such as 6.12, can also delete by filter, without a dump. We do not use this: with IPv6
// addresses they delete all flows except the requested ones, with SCTP the flows of every port (see filter),
// and they do not report how many they deleted. Nor is it faster, because nearly all the time is spent on the
// walk of the table.
func clean(ctx context.Context, family service.Family, stale []service.StaleFlows, filtered bool) (
	deleted int, former []service.Frontend, err error) {
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
		n, err := run(ctx, s, f)
		deleted += n
		former = s.appendFormer(former)
		if err != nil {
			errs = append(errs, fmt.Errorf("delete stale %s flows of %s: %w", protocol, family, err))
		}
	}
	return deleted, former, errors.Join(errs...)
}

// run dumps the flows that pass the filter, deletes those that the sweep does not keep, and lets those to
// draining backends end early.
func run(ctx context.Context, s *sweep, f filter) (deleted int, err error) {
	socket, err := netlink.Open()
	if err != nil {
		return 0, err
	}
	defer socket.Close()
	// Changes have a socket of their own, so that run can send them while the dump continues.
	changes, err := netlink.Open()
	if err != nil {
		return 0, err
	}
	defer changes.Close()

	deletions := &requests{socket: changes, family: s.family}
	expiries := &requests{socket: changes, family: s.family}
	timeouts := readTimeouts(timeoutDir)
	err = dump(socket, f, func(f *flow) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !s.keeps(f) {
			return deletions.delete(f)
		}
		if !s.drains(f) {
			return nil
		}
		switch left := timeouts.leave(f); left {
		case f.timeout:
			return nil
		case 0:
			return deletions.delete(f)
		default:
			return expiries.expire(f, left)
		}
	})
	err = errors.Join(err, deletions.flush(), deletions.refusal("deletions"))
	return deletions.done, errors.Join(err, expiries.flush(), expiries.refusal("shorter timeouts"))
}

// sweep decides which flows of one protocol to delete.
type sweep struct {
	family    service.Family
	protocol  service.Protocol
	frontends map[netip.AddrPort]*target
	keep      map[pair]struct{}
	draining  map[pair]struct{}
}

type target struct {
	gone bool // no Service has the frontend
	left bool // there are flows to backends that it keeps
}

type pair struct{ frontend, backend netip.AddrPort }

func newSweep(family service.Family, protocol service.Protocol, stale []service.StaleFlows) *sweep {
	s := &sweep{family, protocol, map[netip.AddrPort]*target{}, map[pair]struct{}{}, map[pair]struct{}{}}
	for _, st := range stale {
		if st.Frontend.Protocol != protocol || service.FamilyOf(st.Frontend.Addr) != family {
			continue
		}
		frontend := netip.AddrPortFrom(st.Frontend.Addr, st.Frontend.Port)
		s.frontends[frontend] = &target{gone: st.Gone}
		for _, backend := range st.Keep {
			s.keep[pair{frontend, backend}] = struct{}{}
		}
		for _, backend := range st.Draining {
			s.draining[pair{frontend, backend}] = struct{}{}
		}
	}
	return s
}

// keeps reports whether a flow stays.
func (s *sweep) keeps(f *flow) bool {
	to, ours := s.frontends[f.frontend]
	if !ours || f.protocol != s.protocol {
		return true
	}
	if f.backend == f.frontend && (to.gone || s.protocol == service.SCTP) {
		return true
	}
	_, kept := s.keep[pair{f.frontend, f.backend}]
	if !kept {
		_, kept = s.keep[pair{f.frontend, netip.AddrPortFrom(f.backend.Addr(), 0)}]
	}
	to.left = to.left || kept
	return kept
}

// drains reports whether a flow leads to a backend that terminates.
func (s *sweep) drains(f *flow) bool {
	_, draining := s.draining[pair{f.frontend, f.backend}]
	return draining && f.protocol == s.protocol
}

// appendFormer appends the frontends that are gone and have flows that stay.
func (s *sweep) appendFormer(out []service.Frontend) []service.Frontend {
	for at, to := range s.frontends {
		if to.gone && to.left {
			out = append(out, service.Frontend{Addr: at.Addr(), Protocol: s.protocol, Port: at.Port()})
		}
	}
	return out
}

// filter returns the narrowest filter that all frontends of the sweep pass.
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
