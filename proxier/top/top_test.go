package top

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/proxier/status"
)

func of[T any](v T) *T { return &v }

// sample is a report with a Service that works, one with a problem, and one without endpoints.
func sample() *status.Report {
	return &status.Report{
		Summary: status.Summary{Node: "node-a", Version: "v1.0.0", Kernel: "6.18.0", Services: 3,
			LastSync: time.Unix(1, 0), LastSyncAge: 12.3},
		Total: 3, Matched: 3,
		Rows: []status.Row{
			{Namespace: "default", Service: "web", Name: "http", Port: 80, Protocol: "tcp", Ready: 2, All: 3,
				Rate: of(12.34), Open: of(1234), Endpoints: []status.Endpoint{
					{Address: "10.244.1.11", Port: 8080, Node: "node-a", Ready: true, Share: of(0.75), Open: of(1000)},
					{Address: "10.244.2.11", Port: 8080, Node: "node-b", Ready: true, Share: of(0.25), Open: of(234)},
					{Address: "10.244.2.12", Port: 8080, Node: "node-b", LeftOut: "not ready"},
				}},
			{Namespace: "kube-system", Service: "dns", Port: 53, Protocol: "udp", Ready: 0, All: 1,
				Problems: []string{"invalid"}, Rate: of(0.0), Endpoints: []status.Endpoint{
					{Address: "10.244.3.11", Port: 53, Serving: true}}},
			{Namespace: "default", Service: "empty", Port: 80, Protocol: "tcp"},
		},
	}
}

func newView(width, height int) *view {
	return &view{query: status.Query{Order: status.OrderRate}, report: sample(), width: width, height: height}
}

func TestLines(t *testing.T) {
	v := newView(90, 12)
	v.endpoints = true
	want := []string{
		"nftproxy v1.0.0 on node-a, Linux 6.18.0: 3 Services, synced 12s ago",
		"3 ports by new connections per second",
		"SERVICE             PORT         READY       NEW/S*     OPEN  SHARE",
		"default/web         http 80/tcp  2/3             12     1234  █████████████████████▒▒▒▒▒▒▒",
		"  10.244.1.11:8080  node-a       ready                  1000   75% █████████████████",
		"  10.244.2.11:8080  node-b       ready                   234   25% ██████",
		"  10.244.2.12:8080  node-b       left out                  -",
		"! kube-system/dns   53/udp       0/1              0        -",
		"  10.244.3.11:53                 serving                   -",
		"default/empty       80/tcp       0/0              -        -",
		"",
		"q quit   ? help   s sort   / filter   e endpoints   arrows scroll",
	}
	var got []string
	for _, line := range v.lines() {
		got = append(got, strings.TrimRight(line, " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLinesFit draws at every size: no line is too long, and there are not too many. The terminal cuts off
// what the narrowest table has beyond its width.
func TestLinesFit(t *testing.T) {
	const narrowest = 1 + maxPort + readyWidth + rateWidth + openWidth + 4*gap
	for width := 1; width < 200; width += 3 {
		for height := 1; height < 30; height++ {
			v := newView(width, height)
			v.endpoints, v.help = true, height%5 == 0
			v.report.Problems = slices.Repeat([]status.Problem{{What: "what", Todo: "do"}}, 5)
			v.err = fmt.Errorf("no answer")
			lines := v.lines()
			if len(lines) != height {
				t.Fatalf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, line := range lines {
				if n := utf8.RuneCountInString(line); n > max(width, narrowest) {
					t.Fatalf("%dx%d: %d characters: %q", width, height, n, line)
				}
			}
		}
	}
}

// TestHostile shows texts that contain commands for the terminal.
func TestHostile(t *testing.T) {
	const evil = "a\x1b]0;evil\x07\u202e\u009b2J\r\n"
	v := newView(120, 20)
	v.endpoints = true
	v.report.Summary.Node, v.report.Summary.SyncError, v.report.Busy = evil, evil, ""
	v.report.Problems = []status.Problem{{What: evil, Todo: evil}}
	row := &v.report.Rows[0]
	row.Namespace, row.Service, row.Name, row.Protocol = evil, evil, evil, evil
	row.Endpoints[0].Address, row.Endpoints[0].Node = evil, evil
	v.err = fmt.Errorf("%s", evil)
	v.query.Filter = evil
	text := strings.Join(v.lines(), "")
	v.report.Busy = evil
	text += strings.Join(v.lines(), "")
	if i := strings.IndexAny(text, "\x1b\x07\u202e\u009b\r\n"); i >= 0 {
		t.Errorf("the screen has a control character at %d: %q", i, text)
	}
	if !strings.Contains(text, "evil") {
		t.Error("the texts are not on the screen")
	}
}

func TestColour(t *testing.T) {
	v := newView(90, 12)
	if plain := strings.Join(v.lines(), ""); strings.ContainsRune(plain, escape) {
		t.Errorf("without colour: %q", plain)
	}
	v.colour = true
	if text := strings.Join(v.lines(), ""); !strings.Contains(text, "\x1b[31m0/1") {
		t.Errorf("a Service without a ready endpoint is not red: %q", text)
	}
}

func TestPress(t *testing.T) {
	for _, tt := range []struct {
		typed string
		want  status.Query
	}{
		{"s", status.Query{Order: status.OrderOpen}},
		{"ss", status.Query{Order: status.OrderConnections}},
		{"sss\x1b[C", status.Query{Order: status.OrderRate}},
		{"\x1b[D", status.Query{Order: status.OrderName}},
		{"S", status.Query{Order: status.OrderName}},
		{"/we b\r", status.Query{Order: status.OrderRate, Filter: "we b"}},
		{"/web\x7f\x7f\r", status.Query{Order: status.OrderRate, Filter: "w"}},
		{"/\x7f\r", status.Query{Order: status.OrderRate}},
		{"/web\r/x\x1b", status.Query{Order: status.OrderRate, Filter: "web"}},
		{"/web\r\x1b", status.Query{Order: status.OrderRate}},
		{"/sq\r", status.Query{Order: status.OrderRate, Filter: "sq"}},
		{"jj", status.Query{Order: status.OrderRate, Offset: 2}},
		{"jjjjj", status.Query{Order: status.OrderRate, Offset: 2}},
		{"\x1b[Bk\x1b[A", status.Query{Order: status.OrderRate}},
		{"\x1b[6~\x1b[5~", status.Query{Order: status.OrderRate}},
		{"jg", status.Query{Order: status.OrderRate}},
		{"G", status.Query{Order: status.OrderRate}}, // all rows are on the screen
		{"js", status.Query{Order: status.OrderOpen}},
		{"xyz", status.Query{Order: status.OrderRate}},
	} {
		v := newView(80, 24)
		for _, k := range keys([]byte(tt.typed)) {
			if v.press(k) {
				t.Errorf("%q quits", tt.typed)
			}
		}
		if v.query != tt.want {
			t.Errorf("%q: %+v, want %+v", tt.typed, v.query, tt.want)
		}
	}
	for _, typed := range []string{"q", "\x03", "/web\x03", "?q"} {
		v, quit := newView(80, 24), false
		for _, k := range keys([]byte(typed)) {
			quit = v.press(k)
		}
		if !quit {
			t.Errorf("%q does not quit", typed)
		}
	}
}

func TestKeys(t *testing.T) {
	for typed, want := range map[string][]key{
		"":                   nil,
		"aB/":                {'a', 'B', '/'},
		"\x1b[A\x1bOB":       {keyUp, keyDown},
		"\x1b[1~\x1b[4~":     {keyHome, keyEnd},
		"\x1b":               {keyEscape},
		"\x1bx":              {keyEscape, 'x'},
		"\x1b[15~a":          {'a'}, // F5
		"\x1b[1;5Aq":         {'q'}, // Ctrl-up
		"\x1b[":              nil,
		"\r\n\x08\x7f\x03":   {keyEnter, keyEnter, keyBackspace, keyBackspace, keyInterrupt},
		"\x01ä":              nil,
		"\x1b[5~\x1b[6~\x1b": {keyPageUp, keyPageDown, keyEscape},
	} {
		if got := keys([]byte(typed)); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", typed, got, want)
		}
	}
	for typed, want := range map[string]bool{
		"": false, "a": false, "\x1b": true, "\x1b[": true, "\x1b[5": true, "\x1b[5~": false, "\x1bO": true,
		"\x1b[A": false, "a\x1b": true, "\x1b[Aq": false, "\x1bq": false,
	} {
		if got := incomplete([]byte(typed)); got != want {
			t.Errorf("incomplete %q: %t, want %t", typed, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.04: "0.0", 0.25: "0.2", 3: "3", 3.14: "3.1", 12.3: "12",
		1234: "1234", 99999: "99999", 123456: "123k", 12345678: "12M"} {
		if got := number(n); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}

func TestWriteText(t *testing.T) {
	r := sample()
	r.Matched, r.Problems = 203, []status.Problem{{What: "Syncs fail.", Todo: "See the log."}}
	var b strings.Builder
	if err := WriteText(&b, r); err != nil {
		t.Fatal(err)
	}
	want := `! Syncs fail. See the log.
SERVICE            PORT         READY        NEW/S     OPEN  SHARE
default/web        http 80/tcp  2/3             12     1234  ████████████████████████▒▒▒▒▒▒▒▒
! kube-system/dns  53/udp       0/1              0        -
default/empty      80/tcp       0/0              -        -
200 more: choose with --filter
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
