package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values []float64
		part   float64
		want   float64
	}{
		{[]float64{7}, 0.99, 7},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{4, 1, 2, 3}, 0.5, 2.5},
		{[]float64{0, 100}, 0.99, 99},
	} {
		if got := quantile(test.values, test.part); got != test.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", test.values, test.part, got, test.want)
		}
	}
}

func TestReport(t *testing.T) {
	var r record
	for _, f := range []struct {
		who      string
		services int
		value    float64
	}{
		{"floor", 10, 2},
		{"nftproxy", 10, 3}, {"nftproxy", 10, 5}, {"nftproxy", 10, 4},
		{"kube-proxy", 10, 100},
		{"nftproxy", 20, 6},
	} {
		r.note("control", "change", "ms", f.services, f.who, f.value)
	}
	var out bytes.Buffer
	(&report{Figures: r.figures, Failures: []string{"kube-proxy, 20 services: process exited"}}).print(&out)
	_, table, _ := bytes.Cut(out.Bytes(), []byte("relative to nftproxy\n"))
	want := `
  control  unit  services       floor          nftproxy  kube-proxy
   change    ms        10  2.00 x0.50  4.00 (3.00-5.00)   100 x25.0
   change    ms        20                          6.00            

failed: kube-proxy, 20 services: process exited
`
	if diff := cmp.Diff(want, string(table)); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
