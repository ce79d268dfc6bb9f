package proxier

import (
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/kernel"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/rules/service"
)

// mustRead reads the counters now, and returns what is known about the port.
func (k *countingKernel) mustRead(t *testing.T) status.Traffic {
	t.Helper()
	if err := k.update(); err != nil {
		t.Fatal(err)
	}
	return k.of([]string{k.port})[k.port]
}

// TestRate has 300 connections within 10 s, and then none. Those from before the first read have no rate,
// because nobody knows when they came.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCountingKernel()
		k.count = 1_000_000
		if got := k.mustRead(t); got.Connections != 1_000_000 || got.Rate != 0 || got.History != nil {
			t.Errorf("after the first read: %+v", got)
		}
		time.Sleep(10 * time.Second)
		k.count += 300
		if got := k.mustRead(t); got.Rate != 30 || got.Connections != 1_000_300 {
			t.Errorf("300 within 10 s: %+v", got)
		}
		during := 0.0
		k.between = func() { during = k.of([]string{k.port})[k.port].Rate }
		time.Sleep(10 * time.Second)
		k.count += 50
		if got := k.mustRead(t); during != 30 || got.Rate != 5 {
			t.Errorf("while a read is under way the rate is %v, and then %v", during, got.Rate)
		}
		k.between = func() {}
		time.Sleep(10 * time.Second)
		if got := k.mustRead(t); got.Rate != 0 || len(got.History) != historySteps {
			t.Errorf("none within 10 s: %+v", got)
		}
		if ranks := k.ranks(status.OrderConnections); ranks[k.port] != 1_000_350 {
			t.Errorf("ranks %v", ranks)
		}
		if ranks := k.ranks(status.OrderRate); len(ranks) > 0 {
			t.Errorf("ranks by rate %v", ranks)
		}
	})
}

// TestHistory has connections in some steps, also between transactions: the history has each of them, the
// oldest first, for 15 minutes, and then it takes no memory.
func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCountingKernel()
		k.mustRead(t)
		var want []uint32
		for i := range 50 {
			n := uint32(i+1) * 98
			time.Sleep(historyStep / 2)
			k.count += uint64(n) / 2
			if i == 20 {
				k.transaction(k.port, func() {})
			}
			time.Sleep(historyStep / 2)
			k.count += uint64(n) / 2
			want = append(want, n)
			got := k.mustRead(t).History
			if diff := cmp.Diff(want[max(0, len(want)-historySteps):], tail(got, len(want))); diff != "" {
				t.Fatalf("after %d steps (-want +got):\n%s", i+1, diff)
			}
		}
		time.Sleep(historySteps * historyStep / 2)
		if got := k.mustRead(t).History; got[historySteps/2-1] != 4900 || got[historySteps/2] != 0 {
			t.Errorf("after half of the time: %v", got)
		}
		time.Sleep(historySteps * historyStep)
		if got := k.mustRead(t).History; got != nil || k.histories != 0 {
			t.Errorf("after the time: %v, %d histories", got, k.histories)
		}
		k.count += 1 << 40
		time.Sleep(historyStep)
		if got := k.mustRead(t); got.History[historySteps-1] != math.MaxUint32 {
			t.Errorf("very many: %v", got.History)
		}
		k.transaction("", func() {})
		if k.histories != 0 {
			t.Errorf("%d histories of no port", k.histories)
		}
	})
}

// tail returns the last n of a list.
func tail(list []uint32, n int) []uint32 { return list[max(0, len(list)-n):] }

// TestSlowReads reads once in ten steps, as with very many Services: the connections are spread over the steps.
func TestSlowReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCountingKernel()
		k.mustRead(t)
		time.Sleep(10 * historyStep)
		k.count += 1000
		got := k.mustRead(t).History
		for i, n := range got {
			if want := uint32(100); i < historySteps-10 && n != 0 || i >= historySteps-10 && n != want {
				t.Fatalf("history %v", got)
			}
		}
	})
}

// TestHistoriesAreBounded has connections to more ports than histories are kept of.
func TestHistoriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		count := uint64(0)
		c := newConnections(func(each func(kernel.Connections)) error {
			for i := range maxHistories + 10 {
				f := service.Frontend{Addr: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), Protocol: service.TCP,
					Port: uint16(80 + i>>16)}
				each(kernel.Connections{Frontend: f, Port: f.String(), Count: count})
			}
			return nil
		})
		for range 3 {
			count++
			if err := c.update(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(historyStep)
		}
		if c.histories != maxHistories || len(c.ports) != maxHistories+10 {
			t.Errorf("%d histories of %d ports, want %d", c.histories, len(c.ports), maxHistories)
		}
	})
}
