package lab

import (
	"net/netip"
	"testing"
)

// TestFlow opens flows to a server; a server that starts anew does not have the association.
func TestFlow(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, proto := range []string{"udp", "sctp"} {
		for _, text := range []string{"10.244.1.11:8080", "[fd00:10:244:1::11]:8080"} {
			to := netip.MustParseAddrPort(text)
			if err := l.Serve(to, proto); err != nil {
				t.Fatal(err)
			}
			f, err := l.Open("pod-b", proto, to)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			for range 2 {
				if r := f.Ask(); r.By != "pod-a" || r.Source != r.Local {
					t.Errorf("%s %s: %s by %q, from %s", proto, to, r.Outcome, r.By, r.Source)
				}
			}
			s := server{proto, to}
			if err := l.servers[s].Close(); err != nil {
				t.Fatal(err)
			}
			delete(l.servers, s)
			if err := l.Serve(to, proto); err != nil {
				t.Fatal(err)
			}
			want := Answered
			if proto == "sctp" {
				want = Refused
			}
			if r := f.Ask(); r.Outcome != want {
				t.Errorf("%s %s, after a restart of the server: %s, want %s", proto, to, r.Outcome, want)
			}
		}
	}
	if f, err := l.Open("pod-b", "sctp", netip.MustParseAddrPort("10.244.1.11:8081")); err == nil {
		f.Close()
		t.Error("an association with a port without a server")
	}
}
