package proxier

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/nftables"
	"github.com/nftproxy/nftproxy/rules/service"
)

// countingKernel has the counter of one frontend, which transactions replace.
type countingKernel struct {
	*connections
	frontend service.Frontend
	port     string
	count    uint64
	between  func() // what happens when a read has the counter, and has not ended
}

func newCountingKernel() *countingKernel {
	k := &countingKernel{port: "default/web:http", between: func() {}, frontend: service.Frontend{
		Addr: netip.MustParseAddr("10.96.0.10"), Protocol: service.TCP, Port: 80}}
	k.connections = newConnections(func(each func(kernel.Connections)) error {
		each(k.now())
		k.between()
		return nil
	})
	return k
}

func (k *countingKernel) now() kernel.Connections {
	return kernel.Connections{Frontend: k.frontend, Port: k.port, Count: k.count}
}

// transaction deletes the frontend, and adds it to a port unless that is empty. It calls committed when the
// kernel has the new state, and nobody knows the last counter yet.
func (k *countingKernel) transaction(port string, committed func()) {
	d := &rules.Delta{Delete: []nftables.Element{nftables.ServiceElement(k.frontend, 1, k.port)}}
	if port != "" {
		d.Add = []nftables.Element{nftables.ServiceElement(k.frontend, 2, port)}
	}
	k.begin(d)
	last := k.now()
	k.port, k.count = port, 0
	committed()
	k.last(last)
	k.end(d, nil)
}

// TestConnectionsInAnyOrder makes 10 connections before a transaction and 3 after it, with reads before,
// while and after it takes place: the sum is always 13 in the end, and never more than that.
func TestConnectionsInAnyOrder(t *testing.T) {
	read := func(k *countingKernel) {
		if err := k.update(); err != nil {
			panic(err)
		}
	}
	more := func(k *countingKernel) { k.count += 3 }
	replace := func(k *countingKernel, committed ...func(*countingKernel)) {
		k.transaction(k.port, func() {
			for _, f := range committed {
				f(k)
			}
		})
	}
	for name, step := range map[string]func(*countingKernel){
		"no read":                func(k *countingKernel) { replace(k, more) },
		"read before":            func(k *countingKernel) { read(k); replace(k, more) },
		"read during the commit": func(k *countingKernel) { replace(k, more, read) },
		"reads before and then":  func(k *countingKernel) { read(k); replace(k, more, read) },
		"connections come later": func(k *countingKernel) { read(k); replace(k, read); read(k); more(k) },
		"transaction during a read": func(k *countingKernel) {
			k.between = func() { replace(k, more) }
			read(k)
			k.between = func() {}
		},
		"another process replaces it": func(k *countingKernel) { read(k); k.count = 3 },
	} {
		k := newCountingKernel()
		k.count = 10
		step(k)
		read(k)
		if got := k.ports[k.port].sum; got != 13 {
			t.Errorf("%s: %d connections, want 13", name, got)
		}
		read(k)
		if got := k.ports[k.port].sum; got != 13 {
			t.Errorf("%s: %d connections after another read, want 13", name, got)
		}
	}
}

// TestConnectionsOfGonePorts checks that a port is forgotten with its last frontend, also when nobody reads
// the counters.
func TestConnectionsOfGonePorts(t *testing.T) {
	for name, tt := range map[string]struct {
		d    func(*countingKernel)
		want map[string]uint64
	}{
		"deleted": {func(k *countingKernel) { k.transaction("", func() {}) }, nil},
		"another Service": {func(k *countingKernel) { k.transaction("default/other", func() { k.count = 2 }) },
			map[string]uint64{"default/other": 2}},
		"table replaced": {func(k *countingKernel) {
			k.count = 1
			k.end(&rules.Delta{Reset: []rules.BrokenTable{{Family: service.IPv4}}}, nil)
		}, map[string]uint64{"default/web:http": 1}},
	} {
		for _, reads := range []int{0, 1} {
			k := newCountingKernel()
			k.count = 10
			for range reads {
				_ = k.update()
			}
			tt.d(k)
			if tt.want == nil && len(k.ports)+len(k.frontends) > 0 {
				t.Errorf("%s, %d reads: %v is left", name, reads, k.ports)
			}
			sums, err := k.sums()
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want == nil {
				want = map[string]uint64{}
			}
			if diff := cmp.Diff(want, maps.Collect(sums)); diff != "" {
				t.Errorf("%s, %d reads (-want +got):\n%s", name, reads, diff)
			}
		}
	}
}
