package lab

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// layouts runs a test in both layouts of the lab.
func layouts(t *testing.T, test func(*testing.T, *Lab)) {
	for _, opts := range []Options{{}, {Bridge: true}} {
		t.Run(fmt.Sprintf("bridge=%t", opts.Bridge), func(t *testing.T) { test(t, newLab(t, opts)) })
	}
}

// serveAll serves port at every address of the lab, in every protocol.
func serveAll(t *testing.T, l *Lab, port uint16) {
	t.Helper()
	for ip := range l.owners {
		for _, proto := range []string{"tcp", "udp", "sctp"} {
			if err := l.Serve(netip.AddrPortFrom(ip, port), proto); err != nil {
				t.Fatal(err)
			}
		}
	}
}

type directTest struct{ from, to, want string }

// answered returns the text for an answer in the tests.
func answered(by, source string) string { return "answered by " + by + " seen as " + source }

// directTests are requests that no rule changes.
func directTests() []directTest {
	return []directTest{
		{"pod-a", "10.244.1.12:80", answered("pod-b", "10.244.1.11")},
		{"pod-a", "10.244.1.11:80", answered("pod-a", "10.244.1.11")},
		{"pod-a", "10.244.2.11:80", answered("pod-c", "10.244.1.11")},
		{"pod-a", "192.0.2.1:80", answered("host-pod", "10.244.1.11")},
		{"pod-a", "192.0.2.100:80", "dropped"}, // the client has no way back
		{"pod-a", "10.244.1.12:81", "refused"},
		{"pod-a", "10.96.0.10:80", "dropped"},
		{"node", "10.244.1.11:80", answered("pod-a", "10.244.1.1")},
		{"node", "10.244.2.12:80", answered("pod-d", "192.0.2.1")},
		{"host-pod", "192.0.2.1:80", answered("host-pod", "192.0.2.1")},
		{"node", "198.51.100.7:80", "dropped"},
		{"node-b", "10.244.1.12:80", answered("pod-b", "192.0.2.2")},
		{"pod-c", "10.244.1.12:80", answered("pod-b", "10.244.2.11")},
		{"pod-d", "192.0.2.1:80", answered("host-pod", "10.244.2.12")},
		{"pod-d", "203.0.113.10:80", "dropped"},
		{"pod-c", "10.96.0.10:80", "failed"}, // no route
		{"client", "192.0.2.1:80", answered("host-pod", "192.0.2.100")},
		{"client-2", "192.0.2.1:80", answered("host-pod", "192.0.2.101")},
		{"client", "192.0.2.2:80", answered("node-b", "192.0.2.100")},
		{"client", "192.0.2.1:81", "refused"},
		{"client", "10.244.1.11:80", "failed"}, // no route
		{"client", "10.244.2.11:80", "failed"},
		{"client", "10.96.0.10:80", "dropped"},
		{"client", "203.0.113.10:80", "dropped"},

		{"pod-a", "[fd00:10:244:1::12]:80", answered("pod-b", "fd00:10:244:1::11")},
		{"pod-a", "[fd00:10:244:2::12]:80", answered("pod-d", "fd00:10:244:1::11")},
		{"pod-b", "[2001:db8::1]:80", answered("host-pod", "fd00:10:244:1::12")},
		{"pod-b", "[fd00:10:244:1::11]:81", "refused"},
		{"node", "[fd00:10:244:1::11]:80", answered("pod-a", "2001:db8::1")},
		{"pod-d", "[fd00:10:244:1::12]:80", answered("pod-b", "fd00:10:244:2::12")},
		{"client", "[2001:db8::1]:80", answered("host-pod", "2001:db8::100")},
		{"client-2", "[2001:db8::1]:80", answered("host-pod", "2001:db8::101")},
		{"client", "[2001:db8::1]:81", "refused"},
		{"client", "[fd00:10:244:1::11]:80", "failed"},
		{"client", "[fd00:10:96::a]:80", "dropped"},
		{"client", "[2001:db8:1::a]:80", "dropped"},
	}
}

func TestRequestDirect(t *testing.T) {
	layouts(t, func(t *testing.T, l *Lab) {
		serveAll(t, l, 80)
		var (
			mu        sync.Mutex
			wait      sync.WaitGroup
			want, got = map[string]string{}, map[string]string{}
		)
		for _, tt := range directTests() {
			for _, proto := range []string{"tcp", "udp", "sctp"} {
				name := tt.from + " -> " + proto + " " + tt.to
				want[name] = tt.want
				if proto == "sctp" && tt.want == "refused" && !kernelSCTP() {
					want[name] = "dropped" // an address that serves SCTP is silent on its other ports
				}
				wait.Go(func() {
					r := l.Request(tt.from, proto, netip.MustParseAddrPort(tt.to))
					mu.Lock()
					defer mu.Unlock()
					got[name] = r.Outcome.String()
					if r.Outcome == Answered {
						got[name] = answered(r.By, r.Source.String())
					}
				})
			}
		}
		wait.Wait()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// A machine without an SCTP server refuses: the protocol, or the port if the module sctp is loaded.
func TestRequestRefusedWithoutSCTP(t *testing.T) {
	l := newLab(t, Options{})
	for _, to := range []string{"10.244.1.12:80", "[fd00:10:244:1::12]:80"} {
		got := l.Request("pod-a", "sctp", netip.MustParseAddrPort(to))
		if got.Outcome != Refused {
			t.Errorf("%s: %s (%v), want refused", to, got.Outcome, got.Err)
		}
	}
}
