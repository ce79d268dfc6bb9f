//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// page is a /metrics page in the text format of Prometheus.
type page struct {
	types  map[string]string // by metric
	series []series
}

// series is one line of a page.
type series struct {
	name   string
	labels map[string]string
	value  float64
}

var (
	seriesLine = regexp.MustCompile(`^(\w+)(?:\{(.*)\})? (\S+)$`)
	labelPair  = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

func parsePage(t *testing.T, text string) page {
	t.Helper()
	p := page{types: map[string]string{}}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if typ, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(typ, " ")
			p.types[name] = kind
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := seriesLine.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("/metrics has the line %q", line)
		}
		value, err := strconv.ParseFloat(m[3], 64)
		must(t, err)
		s := series{name: m[1], labels: map[string]string{}, value: value}
		for _, pair := range labelPair.FindAllStringSubmatch(m[2], -1) {
			s.labels[pair[1]] = pair[2]
		}
		p.series = append(p.series, s)
	}
	return p
}

// metrics describes each metric in a line: name, type, labels, and the bounds of the buckets. It leaves out
// the metrics of the Prometheus client library.
func (p page) metrics() []string {
	var lines []string
	for name, kind := range p.types {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		var labels, bounds []string
		for _, s := range p.series {
			if s.name != name && (kind != "histogram" || s.name != name+"_bucket") {
				continue
			}
			labels = slices.DeleteFunc(slices.Sorted(maps.Keys(s.labels)),
				func(l string) bool { return l == "le" })
			if le := s.labels["le"]; le != "" && le != "+Inf" && !slices.Contains(bounds, le) {
				bounds = append(bounds, le)
			}
		}
		words := append([]string{name, kind}, labels...)
		if kind == "histogram" {
			words = append(append(words, "buckets", fmt.Sprintf("%d:", len(bounds))), bounds...)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	slices.Sort(lines)
	return lines
}

// selector picks series, as in PromQL.
type selector struct {
	name     string
	matchers []matcher
}

type matcher struct {
	label, operator string
	value           *regexp.Regexp
}

var (
	selectorText = regexp.MustCompile(`^(\w+)(?:\{(.*)\})?$`)
	matcherText  = regexp.MustCompile(`(\w+)(=~|!~|!=|=)"([^"]*)"`)
)

func parseSelector(t *testing.T, text string) selector {
	t.Helper()
	m := selectorText.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%q is not a selector", text)
	}
	s := selector{name: m[1]}
	for _, part := range matcherText.FindAllStringSubmatch(m[2], -1) {
		pattern := part[3]
		if !strings.HasSuffix(part[2], "~") {
			pattern = regexp.QuoteMeta(pattern)
		}
		anchored := regexp.MustCompile("^(?:" + pattern + ")$")
		s.matchers = append(s.matchers, matcher{part[1], part[2], anchored})
	}
	return s
}

func (s selector) matches(one series) bool {
	for _, m := range s.matchers {
		if m.value.MatchString(one.labels[m.label]) == strings.HasPrefix(m.operator, "!") {
			return false
		}
	}
	return one.name == s.name
}

// pick returns the series that a selector picks.
func (p page) pick(t *testing.T, text string) []series {
	t.Helper()
	s := parseSelector(t, text)
	return slices.DeleteFunc(slices.Clone(p.series), func(one series) bool { return !s.matches(one) })
}

// sum returns the sum of the values that a selector picks, which is 0 without any series.
func (p page) sum(t *testing.T, text string) float64 {
	t.Helper()
	total := 0.0
	for _, one := range p.pick(t, text) {
		total += one.value
	}
	return total
}

// notAbove returns those selectors whose sum is not greater than on the page before.
func (p page) notAbove(t *testing.T, before page, selectors ...string) []string {
	t.Helper()
	var still []string
	for _, s := range selectors {
		if was := before.sum(t, s); p.sum(t, s) <= was {
			still = append(still, fmt.Sprintf("%s is still %v", s, was))
		}
	}
	return still
}
