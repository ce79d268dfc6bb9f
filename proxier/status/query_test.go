package status

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/rules/service"
)

// cluster returns Services a/s0, a/s1, ..., each with the ports http (80, nodePort 30080) and dns (53/udp).
func cluster(n int) (all []*service.Service) {
	for i := n - 1; i >= 0; i-- {
		all = append(all, &service.Service{
			Name:       service.Name{Namespace: "a", Name: fmt.Sprint("s", i)},
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}), netip.MustParseAddr("fd00::1")},
			Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080},
				{Name: "dns", Protocol: service.UDP, Port: 53}},
		})
	}
	return all
}

func names(s Selection) (list []string) {
	for _, row := range s.Rows {
		list = append(list, row.Name())
	}
	return list
}

func TestSelect(t *testing.T) {
	ranks := map[string]float64{"a/s2:dns": 5, "a/s0:http": 7, "a/s3:http": 5}
	for _, tt := range []struct {
		query   string
		want    string
		matched int
	}{
		{"limit=3", "a/s0:http a/s0:dns a/s1:http", 8},
		{"limit=3&offset=3", "a/s1:dns a/s2:http a/s2:dns", 8},
		{"limit=3&offset=7", "a/s3:dns", 8},
		{"limit=3&offset=8", "", 8},
		{"q=S2", "a/s2:http a/s2:dns", 2},
		{"q=a/s2:http", "a/s2:http", 1},
		{"q=s1+udp", "a/s1:dns", 1},
		{"q=10.96.0.3:80", "a/s3:http", 1},
		{"q=30080+s0", "a/s0:http", 1},
		{"q=[fd00::1]:53", "a/s0:dns a/s1:dns a/s2:dns a/s3:dns", 4},
		{"q=none", "", 0},
		{"q=++", "a/s0:http a/s0:dns a/s1:http a/s1:dns a/s2:http a/s2:dns a/s3:http a/s3:dns", 8},
		{"order=rate&limit=4", "a/s0:http a/s2:dns a/s3:http a/s0:dns", 8},
		{"order=rate&limit=2&offset=2", "a/s3:http a/s0:dns", 8},
		{"order=rate&limit=2&offset=4", "a/s1:http a/s1:dns", 8},
		{"order=connections&limit=9&q=s3", "a/s3:http a/s3:dns", 2},
	} {
		values, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		s := ParseQuery(values).Select(cluster(4), ranks)
		if got := strings.Join(names(s), " "); got != tt.want || s.Matched != tt.matched || s.Total != 8 {
			t.Errorf("%s: %q, %d of %d match; want %q, %d of 8", tt.query, got, s.Matched, s.Total,
				tt.want, tt.matched)
		}
	}
}

// TestQueryBounds asks for too much, and for nonsense.
func TestQueryBounds(t *testing.T) {
	long := strings.Repeat("é", 1000)
	for text, want := range map[string]Query{
		"":                                    {Order: OrderName, Limit: DefaultLimit},
		"limit=1000000&offset=-5&order=drop":  {Order: OrderName, Limit: MaxLimit},
		"limit=x&offset=99999999999999999999": {Order: OrderName, Limit: DefaultLimit, Offset: 1<<63 - 1 - MaxLimit},
		"q=" + long:                           {Filter: long[:maxFilter], Order: OrderName, Limit: DefaultLimit},
		"q=a+b+c+d+e+f+g+h+i":                 {Filter: "a b c d e f g h", Order: OrderName, Limit: DefaultLimit},
		"q=%ff%fe&order=rate":                 {Order: OrderRate, Limit: DefaultLimit},
	} {
		values, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, ParseQuery(values)); diff != "" {
			t.Errorf("%.40s (-want +got):\n%s", text, diff)
		}
		ParseQuery(values).Select(cluster(1), nil)
	}
}

func BenchmarkSelect(b *testing.B) {
	all := cluster(50_000)
	for name, q := range map[string]Query{"all": {}, "filter": {Filter: "s4 udp"}, "rate": {Order: OrderRate}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				q.Normal().Select(append(all[:0:0], all...), nil)
			}
		})
	}
}
