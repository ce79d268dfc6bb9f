package status

import (
	"testing"
	"time"
)

// TestWords writes numbers and times as the page does.
func TestWords(t *testing.T) {
	f := func(n float64) *float64 { return &n }
	noon := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	v := view{Report: &Report{At: noon}}
	used := Row{All: 5, Ready: 3, Serving: 4, LeftOut: 1}
	for _, tt := range []struct{ got, want string }{
		{seconds(0.00008), "0.08 ms"}, {seconds(0.0028), "2.8 ms"}, {seconds(0.24), "240 ms"}, {seconds(1.44), "1.4 s"},
		{seconds(312), "312 s"},
		{latency(Latency{}), "–"}, {latency(Latency{0.003, 0.012, 9}), "3.0 / 12 ms"},
		{latency(Latency{0.9, 1.2, 9}), "900 ms / 1.2 s"},
		{span(-time.Second), "0 s"}, {span(59 * time.Second), "59 s"}, {span(61 * time.Second), "1 min"},
		{span(72 * time.Minute), "1 h 12 min"}, {span(76 * time.Hour), "3 d 4 h"},
		{v.clock(noon.Add(-time.Hour)), "11:00:00 UTC"}, {v.clock(noon.Add(-13 * time.Hour)), "2026-06-30 23:00:00 UTC"},
		{count(7), "7"}, {count(1234567), "1,234,567"}, {count(uint64(100)), "100"}, {maybe[int](nil), "–"},
		{several(1, "sync"), "1 sync"}, {several(2000, "sync"), "2,000 syncs"},
		{rate(nil), "–"}, {rate(f(0)), "0/s"}, {rate(f(0.01)), "<0.1/s"}, {rate(f(9.96)), "10.0/s"},
		{rate(f(12345)), "12,345/s"}, {percent(f(0.666)), "67%"}, {percent(nil), "–"},
		{used.endpointsText(), "3 of 5 ready, 4 serving, 1 left out"},
		{Row{All: 3, Ready: 2, Serving: 2, LeftOut: 1}.endpointsText(), "2 of 3 ready"}, {Row{}.endpointsText(), "none"},
		{Endpoint{Address: "fd00::1", Port: 80}.address(), "[fd00::1]:80"},
		{Endpoint{Serving: true}.state(), "serving, terminates"},
		{duration(3 * time.Hour), "3h"}, {duration(90 * time.Minute), "90m"}, {duration(90 * time.Second), "1m30s"},
		{sparkline([]uint32{0, 10, 5}), "0.0,23.0 50.0,2.0 100.0,12.5"},
	} {
		if tt.got != tt.want {
			t.Errorf("%q, want %q", tt.got, tt.want)
		}
	}
}

// TestTimes keeps more durations than there is room for: the quantiles are those of the last ones.
func TestTimes(t *testing.T) {
	var times Times
	if l := times.Latency(); l != (Latency{}) {
		t.Errorf("without durations: %+v", l)
	}
	times.Add(-time.Second)
	times.Add(time.Second)
	if l := times.Latency(); l != (Latency{0, 1, 2}) {
		t.Errorf("two durations: %+v", l)
	}
	for i := range 3 * len(times.last) {
		times.Add(time.Duration(i) * time.Millisecond)
	}
	if l := times.Latency(); l.P50 != 1.279 || l.P99 != 1.530 || l.Samples != len(times.last) {
		t.Errorf("many durations: %+v", l)
	}
}
