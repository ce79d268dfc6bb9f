package metrics

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// listed returns the metrics of the lists as name, type and labels, without buckets.
func listed(t *testing.T, files ...string) []string {
	t.Helper()
	var out []string
	for _, file := range files {
		text, err := os.ReadFile("testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			words, _, _ := strings.Cut(strings.TrimSpace(line), " buckets ")
			out = append(out, words)
		}
	}
	slices.Sort(out)
	return out
}

var description = regexp.MustCompile(`fqName: "(\w+)".* variableLabels: \{([\w,]*)\}`)

// TestRegistry compares what is registered with the lists: also a metric that nothing ever counts must be in
// them. The types and buckets are compared where a page is, in internal/e2e.
func TestRegistry(t *testing.T) {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		New().Registry.Describe(descriptions)
		close(descriptions)
	}()
	var got []string
	for d := range descriptions {
		m := description.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("unexpected description %s", d)
		}
		if strings.HasPrefix(m[1], "go_") || strings.HasPrefix(m[1], "process_") {
			continue
		}
		labels := slices.Sorted(strings.SplitSeq(m[2], ","))
		got = append(got, strings.TrimSpace(m[1]+" "+strings.Join(labels, " ")))
	}
	slices.Sort(got)
	var want []string
	for _, line := range listed(t, "kube-proxy.txt", "nftproxy.txt") {
		words := strings.Fields(line)
		want = append(want, strings.Join(slices.Delete(words, 1, 2), " "))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names and labels (-want +got):\n%s", diff)
	}
}

// TestPage compares the tables of docs/metrics.md with the lists.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for title, list := range map[string]string{
		"Metrics of kube-proxy": "kube-proxy.txt",
		"Metrics of nftproxy":   "nftproxy.txt",
	} {
		_, section, _ := strings.Cut(string(text), "## "+title+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		var got []string
		for line := range strings.Lines(section) {
			cells := strings.Split(line, "|")
			if len(cells) < 5 || !strings.HasPrefix(cells[1], " `") {
				continue
			}
			var labels []string
			if cell := strings.TrimSpace(cells[3]); cell != "" {
				labels = slices.Sorted(strings.SplitSeq(cell, ", "))
			}
			name := strings.Trim(cells[1], " `")
			got = append(got, strings.Join(append([]string{name, strings.TrimSpace(cells[2])}, labels...), " "))
		}
		slices.Sort(got)
		if diff := cmp.Diff(listed(t, list), got); diff != "" {
			t.Errorf("%s (-%s +docs/metrics.md):\n%s", title, list, diff)
		}
	}
}

func TestErrnoName(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{unix.ENOBUFS, "ENOBUFS"},
		{fmt.Errorf("apply table nftproxy: %w", unix.EBUSY), "EBUSY"},
		{errors.Join(errors.New("no answer"), fmt.Errorf("receive: %w", unix.EAGAIN)), "EAGAIN"},
		{errors.New("no answer"), "unknown"},
		{unix.Errno(4000), "unknown"},
	} {
		if got := errnoName(test.err); got != test.want {
			t.Errorf("%v: got %s, want %s", test.err, got, test.want)
		}
	}
}
