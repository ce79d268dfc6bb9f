package faults

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPage compares the sections of the page with the list of faults, and the first and the last line of each
// output with what an answer has there.
func TestPage(t *testing.T) {
	page, err := Read("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(slices.Values(Names())), slices.Sorted(maps.Keys(page))); diff != "" {
		t.Errorf("faults of the list, and of the page (-want +got)\n%s", diff)
	}
	for name, f := range page {
		first, last := f.Lines[0], f.Lines[len(f.Lines)-1]
		ends := strings.HasPrefix(last, "verdict ") || slices.Contains(f.Args, "--live") &&
			strings.HasPrefix(last, "live ")
		if first == "..." || !ends {
			t.Errorf("%s: the output begins with %q and ends with %q", name, first, last)
		}
	}
}

// TestSteps finds the steps of the page of Kubernetes.
func TestSteps(t *testing.T) {
	steps, err := Steps("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 12 {
		t.Errorf("%d steps, want the example and 11: %+v", len(steps), steps)
	}
}

// TestLinks follows the links within the page.
func TestLinks(t *testing.T) {
	text, err := os.ReadFile("../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	var anchors []string
	for _, heading := range regexp.MustCompile("(?m)^#+ (.*)$").FindAllStringSubmatch(string(text), -1) {
		anchors = append(anchors, anchor(heading[1]))
	}
	links := regexp.MustCompile(`\]\(#(.*?)\)`).FindAllStringSubmatch(string(text), -1)
	for _, link := range links {
		if !slices.Contains(anchors, link[1]) {
			t.Errorf("no heading has the anchor #%s", link[1])
		}
	}
	for _, name := range Names() {
		if !slices.ContainsFunc(links, func(l []string) bool { return l[1] == name }) {
			t.Errorf("no symptom leads to #%s", name)
		}
	}
}

func TestDiffers(t *testing.T) {
	f := Fault{Lines: []string{"frontend  a", "...", "sync  ... ago", "...", "verdict   b"}}
	for output, want := range map[string]bool{
		"frontend  a\nsync      1s ago\nverdict   b\n":           false,
		"frontend  a\nx  y\nsync 1s ago\nx  y\nverdict  b\n":     false,
		"frontend  c\nsync  1s ago\nverdict  b\n":                true,
		"frontend  a\nsync  1s ago\nverdict  c\n":                true,
		"frontend  a\nverdict  b\n":                              true,
		"x  y\nfrontend  a\nsync  1s ago\nverdict  b\n":          true,
		"frontend  a\nsync  1s ago\nverdict  b\nverdict  else\n": true,
	} {
		if got := f.Differs(output); got != "" != want {
			t.Errorf("%q: %q, want a difference: %t", output, got, want)
		}
	}
}
