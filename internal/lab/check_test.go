package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type judgeTest struct {
	name    string
	row     Row
	results [][]Result
	report  string
	want    string
}

func judgeTests() []judgeTest {
	ip := netip.MustParseAddr
	client, node, other := ip("192.0.2.100"), ip("192.0.2.1"), ip("192.0.2.9")
	answers := func(n int, by string, source netip.Addr) []Result {
		var results []Result
		for range n {
			results = append(results, Result{Outcome: Answered, By: by, Source: source, Local: client})
		}
		return results
	}
	lost := func(outcome Outcome, text string) []Result {
		return []Result{{Outcome: outcome, Err: errors.New(text)}}
	}
	a, b, c := answers(3, "pod-a", client), answers(2, "pod-b", node), answers(1, "pod-c", other)
	return []judgeTest{
		{"one", Row{By: []string{"pod-a"}}, [][]Result{a}, "pod-a 3; seen as 192.0.2.100", ""},
		{"each of two", Row{By: []string{"pod-b", "pod-a"}}, [][]Result{a, b},
			"pod-a 3, pod-b 2; seen as 192.0.2.1, 192.0.2.100", ""},
		{"a stranger", Row{By: []string{"pod-a"}}, [][]Result{a, c},
			"pod-a 3, pod-c 1; seen as 192.0.2.9, 192.0.2.100",
			"answered by pod-c (1 of 4), want only pod-a"},
		{"one is missing", Row{By: []string{"pod-a", "pod-b"}}, [][]Result{a}, "pod-a 3; seen as 192.0.2.100",
			"not answered by pod-b (0 of 3)"},
		{"lost", Row{By: []string{"pod-a"}}, [][]Result{a, lost(Dropped, "timeout"), lost(Failed, "broken")},
			"pod-a 3; seen as 192.0.2.100; dropped 1; failed 1; timeout",
			"refused 0, dropped 1, failed 1 (of 5): timeout"},
		{"unchanged", Row{By: []string{"pod-a"}, Source: "unchanged"}, [][]Result{a},
			"pod-a 3; seen as 192.0.2.100", ""},
		{"changed", Row{By: []string{"pod-b"}, Source: "unchanged"}, [][]Result{b},
			"pod-b 2; seen as 192.0.2.1",
			"seen by pod-b as 192.0.2.1, want its own 192.0.2.100 (2 of 2)"},
		{"node", Row{By: []string{"pod-b"}, Source: "node"}, [][]Result{b}, "pod-b 2; seen as 192.0.2.1", ""},
		{"not the node", Row{By: []string{"pod-c"}, Source: "node"}, [][]Result{c},
			"pod-c 1; seen as 192.0.2.9",
			"seen by pod-c as 192.0.2.9, want an address of the node (1 of 1)"},
		{"literal", Row{By: []string{"pod-c"}, Source: "192.0.2.9"}, [][]Result{c},
			"pod-c 1; seen as 192.0.2.9", ""},
		{"not the literal", Row{By: []string{"pod-a", "pod-c"}, Source: "192.0.2.9"}, [][]Result{a, c},
			"pod-a 3, pod-c 1; seen as 192.0.2.9, 192.0.2.100",
			"seen by pod-a as 192.0.2.100, want 192.0.2.9 (3 of 4)"},
		{"sticky", Row{By: []string{"pod-a", "pod-b"}, Sticky: true}, [][]Result{b},
			"pod-b 2; seen as 192.0.2.1", ""},
		{"not sticky", Row{By: []string{"pod-a", "pod-b"}, Sticky: true}, [][]Result{a, b},
			"pod-a 3, pod-b 2; seen as 192.0.2.1, 192.0.2.100",
			"answered by pod-a 3, pod-b 2 (of 5), want always the same"},
		{"sticky to a stranger", Row{By: []string{"pod-a", "pod-b"}, Sticky: true}, [][]Result{c},
			"pod-c 1; seen as 192.0.2.9",
			"answered by pod-c (1 of 1), want only pod-a, pod-b"},
		{"refused", Row{Refused: true}, [][]Result{lost(Refused, "refused")}, "refused 1", ""},
		{"not refused", Row{Refused: true}, [][]Result{lost(Refused, "refused"), lost(Dropped, "timeout")},
			"refused 1; dropped 1",
			"refused 1; dropped 1 (of 2), want all refused"},
		{"dropped", Row{Dropped: true}, [][]Result{lost(Dropped, "timeout")}, "dropped 1", ""},
		{"not dropped", Row{Dropped: true}, [][]Result{a}, "pod-a 3; seen as 192.0.2.100",
			"pod-a 3; seen as 192.0.2.100 (of 3), want all dropped"},
	}
}

func TestJudge(t *testing.T) {
	l := &Lab{nodeAddrs: map[netip.Addr]bool{netip.MustParseAddr("192.0.2.1"): true}}
	for _, tt := range judgeTests() {
		t.Run(tt.name, func(t *testing.T) {
			var report Report
			var all []Result
			for _, results := range tt.results {
				all = append(all, results...)
			}
			for _, result := range all {
				report.add(result)
			}
			if diff := cmp.Diff(tt.report, report.String()); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			got := ""
			if err := l.judge(tt.row, report, all); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckStops(t *testing.T) {
	l := newLab(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	to := Target{"udp", netip.MustParseAddrPort("198.51.100.7:53")}
	row := Row{From: "client", To: to, Dropped: true, Requests: 1 << 20}
	report, err := l.Check(ctx, row)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if report.Sent > 16 {
		t.Errorf("%d requests after the context had ended", report.Sent)
	}
}

func TestCheckSaysWho(t *testing.T) {
	l := newLab(t, Options{})
	serveAll(t, l, 80)
	row := Row{From: "pod-a", To: Target{"tcp", netip.MustParseAddrPort("10.244.1.12:80")},
		By: []string{"pod-c"}}
	_, err := l.Check(t.Context(), row)
	want := "pod-a -> tcp 10.244.1.12:80: " +
		"answered by pod-b (4 of 4), want only pod-c; not answered by pod-c (0 of 4)"
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
