package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// result is what a kernel showed.
type result struct {
	version string // of the kernel, with the patches of its distribution
	steps   []stepResult
	// attributes are what tests found out about the kernel (testing.T.Attr).
	attributes map[string]string
	err        error // the guest did not end
}

// stepResult is the output of a step.
type stepResult struct {
	step
	nftVersion     string // that the step used, if it says so
	ended          bool
	status         string // the exit code
	seconds        string // in the guest
	passed, failed int    // tests, without those that only have subtests
	names          []string
}

var (
	kernelVersion = regexp.MustCompile(`(?m)Debian (\d+\.\d+\.\d+)`)
	nftVersion    = regexp.MustCompile(`(?m)^nftables v(\S+)`)
	testResult    = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL): (\S+) `)
	attribute     = regexp.MustCompile(`(?m)^ *=== ATTR +\S+ (\S+) (.*)$`)
)

// parse reads the output of a guest.
func parse(output string, steps []step) result {
	head, _, _ := strings.Cut(output, beginStep)
	r := result{version: "unknown", attributes: map[string]string{}}
	if m := kernelVersion.FindStringSubmatch(head); m != nil {
		r.version = m[1]
	}
	for _, m := range attribute.FindAllStringSubmatch(output, -1) {
		r.attributes[m[1]] = strings.TrimSpace(m[2])
	}
	for i, s := range steps {
		_, rest, _ := strings.Cut(output, fmt.Sprintf("%s%d\n", beginStep, i))
		text, end, ended := strings.Cut(rest, "\n"+endStep)
		one := stepResult{step: s, ended: ended}
		if ended {
			line, _, _ := strings.Cut(end, "\n")
			one.status, one.seconds, _ = strings.Cut(line, " ")
		}
		if m := nftVersion.FindStringSubmatch(text); m != nil {
			one.nftVersion = m[1]
		}
		one.count(text)
		r.steps = append(r.steps, one)
	}
	return r
}

// count counts the tests in the output. A test with subtests counts as these.
func (s *stepResult) count(text string) {
	outcomes := map[string]bool{}
	for _, m := range testResult.FindAllStringSubmatch(text, -1) {
		outcomes[m[2]] = m[1] == "PASS"
	}
	for name := range outcomes {
		for parent := name; strings.Contains(parent, "/"); {
			parent = parent[:strings.LastIndex(parent, "/")]
			if passed, found := outcomes[parent]; found && (passed || !outcomes[name]) {
				delete(outcomes, parent)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		if outcomes[name] {
			s.passed++
			continue
		}
		s.failed++
		s.names = append(s.names, name)
	}
}

// ok reports whether the step did what it should.
func (s stepResult) ok() bool { return s.ended && s.status == "0" && s.failed == 0 }

// String is the cell of the table.
func (s stepResult) String() string {
	tests := s.passed + s.failed
	switch {
	case !s.ended:
		return "did not end"
	case tests > 0:
		return strconv.Itoa(s.passed) + " of " + strconv.Itoa(tests)
	case s.ok():
		return "ok"
	}
	return "failed"
}

// failures describes what went wrong, for a person who looks for the reason in the log.
func (r result) failures() []string {
	var out []string
	if r.err != nil {
		out = append(out, r.err.Error())
	}
	for _, s := range r.steps {
		if !s.ok() {
			text := s.title + ": " + s.String()
			if s.ended {
				text += ", exit code " + s.status
			}
			out = append(out, strings.Join(append([]string{text}, s.names...), " "))
		}
	}
	return out
}
