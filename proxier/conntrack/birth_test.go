package conntrack

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestBirths asks for flows that exist, that begin, and that begin and end at once.
func TestBirths(t *testing.T) {
	for _, family := range service.Families() {
		t.Run(family.String(), func(t *testing.T) {
			ns := lab.TestNamespace(t)
			flow := func(protocol service.Protocol, port string) entry {
				return entry{protocol: protocol, client: in(family, "10.0.0.1:"+port),
					frontend: in(family, clusterIP), backend: in(family, backend1)}
			}
			old, begins := flow(service.UDP, "1001"), flow(service.UDP, "1002")
			ends, never := flow(service.TCP, "1003"), flow(service.UDP, "1004")
			create(t, ns, []entry{old})
			err := ns.Do(func() error {
				births, err := WatchBirths()
				if err != nil {
					return err
				}
				defer births.Close()
				create(t, ns, []entry{begins})
				create(t, ns, []entry{ends})
				deleteAll(t, ns, family)
				create(t, ns, []entry{old})
				for _, tt := range []struct {
					entry
					want bool
				}{{ends, true}, {old, true}, {never, false}} {
					to, found, err := births.Translation(tt.protocol, tt.client, tt.frontend)
					if err != nil || found != tt.want || found && to != tt.backend {
						t.Errorf("%s: %s, found %t, error %v", tt.entry, to, found, err)
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// deleteAll deletes all flows of a family.
func deleteAll(t *testing.T, ns *lab.Namespace, family service.Family) {
	t.Helper()
	s := openSocket(t, ns)
	defer s.Close()
	var w netlink.Writer
	w.Message(unix.NFNL_SUBSYS_CTNETLINK, msgDelete, unix.NLM_F_ACK, family.Number())
	if err := s.Request(&w, func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if left := list(t, ns); len(left) > 0 {
		t.Fatalf("left %v", left)
	}
}
