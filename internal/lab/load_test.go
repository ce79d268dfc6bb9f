package lab

import (
	"net/netip"
	"testing"
	"time"
)

// waitFor waits until a load has made n requests.
func waitFor(t *testing.T, load *Load, n int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for load.Report().Sent < n {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests in 10 s, want %d", load.Report().Sent, n)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSteady(t *testing.T) {
	l := newLab(t, Options{})
	to := netip.MustParseAddrPort("10.244.1.12:80")
	for _, proto := range []string{"tcp", "udp", "sctp"} {
		if err := l.Serve(to, proto); err != nil {
			t.Fatal(err)
		}
		load := l.Steady(t.Context(), "pod-a", proto, to, time.Millisecond)
		waitFor(t, load, 100)
		report := load.Stop()
		if report.Lost() != 0 || report.By["pod-b"] != report.Sent {
			t.Errorf("%s: %s", proto, report)
		}
		if later := load.Report(); later.Sent != report.Sent {
			t.Errorf("%s: %d requests after Stop", proto, later.Sent-report.Sent)
		}
	}
}

func TestSteadyNotices(t *testing.T) {
	l := newLab(t, Options{})
	if err := l.Serve(netip.MustParseAddrPort("10.244.1.12:80"), "tcp"); err != nil {
		t.Fatal(err)
	}
	load := l.Steady(t.Context(), "pod-a", "tcp", netip.MustParseAddrPort("10.244.1.12:81"), time.Millisecond)
	waitFor(t, load, 10)
	report := load.Stop()
	if report.Lost() != report.Sent || report.Refused != report.Sent || report.Err == nil {
		t.Errorf("%s, want all refused", report)
	}
}
