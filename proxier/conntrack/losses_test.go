package conntrack

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
	"github.com/nftproxy/nftproxy/rules/service"
)

// TestTableFull fills the table of connection tracking: packets of new connections are dropped and counted,
// and those of connections that it knows pass. The limit is that of the machine, whatever the namespace.
func TestTableFull(t *testing.T) {
	l, err := lab.New(lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	to := netip.MustParseAddrPort("10.244.2.11:8080") // pod-c
	if err := l.Serve(to, "udp"); err != nil {
		t.Fatal(err)
	}
	const tracks = "table ip tracks { chain c { type filter hook forward priority 0; ct state new; }; }"
	if _, err := l.Node().Nft(tracks, "-f", "-"); err != nil {
		t.Fatal(err)
	}
	known, err := l.Open("pod-b", "udp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer known.Close()
	if r := known.Ask(); r.Outcome != lab.Answered {
		t.Fatalf("before the table is full: %v, %v", r.Outcome, r.Err)
	}
	if before := lossesIn(t, l.Node()); before != (Losses{}) {
		t.Errorf("in a new namespace: %+v, want no losses", before)
	}
	if !fill(t, l.Node()) {
		return
	}
	if r := l.Request("pod-b", "udp", to); r.Outcome != lab.Dropped {
		t.Errorf("a new connection when the table is full: %v, want %v", r.Outcome, lab.Dropped)
	}
	if lost := lossesIn(t, l.Node()); lost.Dropped == 0 || lost.Insert != 0 {
		t.Errorf("the table is full: %+v, want some dropped, and none because of an insertion", lost)
	}
	if r := known.Ask(); r.Outcome != lab.Answered {
		t.Errorf("a connection that is known when the table is full: %v, %v", r.Outcome, r.Err)
	}
}

// fill makes flows, which the kernel may not evict, until the table is full. It returns false where that
// would take too long.
func fill(t *testing.T, ns *lab.Namespace) bool {
	t.Helper()
	var text []byte
	err := ns.Do(func() (err error) {
		text, err = os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_max")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if limit > 600_000 {
		t.Logf("the table has room for %d flows here: this does not show what happens when it is full", limit)
		return false
	}
	client, to := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddrPort("192.0.2.1:9")
	next := func() entry {
		client = client.Next()
		return entry{protocol: service.UDP, client: netip.AddrPortFrom(client, 9), frontend: to, backend: to,
			status: statusAssured}
	}
	var all []entry
	for range limit - 100 {
		all = append(all, next())
	}
	create(t, ns, all)
	s := openSocket(t, ns)
	defer s.Close()
	for range 200 {
		var w netlink.Writer
		appendNew(&w, next())
		full := false
		if err := s.Send(&w, func(e *netlink.Error) { full = e.Errno == unix.ENOMEM }); err != nil {
			t.Fatal(err)
		}
		if full {
			return true
		}
	}
	t.Fatal("the table is not full")
	return false
}

func lossesIn(t *testing.T, ns *lab.Namespace) (lost Losses) {
	t.Helper()
	err := ns.Do(func() (err error) {
		lost, err = ReadLosses()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lost
}
