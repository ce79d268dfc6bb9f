// Package faults reads the faults of docs/troubleshooting.md: for each, a command and what it prints.
//
// The tests of this project seed each fault, and hold the output of nftproxy against the page. So the page
// is the list of faults, and a fault that the page or a test forgets fails a test. Each fault is a section of
// the page's part "The faults". Its first block of code that begins with $ is the command with its output.
package faults

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names are the faults, as the anchors of their sections. Two tests share them: one in the laboratory, with
// manifests, and one with a real API server.
func Names() []string {
	return []string{
		"no-endpoints", "wrong-targetport", "named-port-missing", "policy-local-without-a-local-pod",
		"source-range", "topology-hints", "two-services-with-one-address", "external-ip-not-allowed",
		"dns", "hairpin", "pods-on-one-bridge", "ip-forwarding-off", "connection-tracking-full", "a-firewall-drops",
		"a-networkpolicy-drops", "another-program-masquerades", "another-program-uses-the-mark",
		"nftproxy-does-not-run", "nftproxy-is-behind", "another-program-changed-the-tables",
		"the-kernel-lacks-nftables",
	}
}

// Fault is a fault on the page.
type Fault struct {
	Name string
	Args []string // of nftproxy
	Exit int      // its exit code
	// Lines are what it prints. A line that is only ... stands for any number of lines, and in a line it
	// stands for any text.
	Lines []string
}

// Read returns the faults on a page, by name.
func Read(page string) (map[string]Fault, error) {
	part, err := readPart(page, "The faults")
	if err != nil {
		return nil, err
	}
	all := map[string]Fault{}
	for _, section := range strings.Split(part, "\n### ")[1:] {
		heading, body, _ := strings.Cut(section, "\n")
		f, err := parse(anchor(heading), body)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", page, heading, err)
		}
		all[f.Name] = f
	}
	return all, nil
}

// Steps returns the steps of the page of Kubernetes about Services that do not work: each is a row with a
// command and a line of its output. The first is the example of the page, with its whole output. All are
// about a node without a fault.
func Steps(page string) ([]Fault, error) {
	part, err := readPart(page, "One command: explain")
	if err != nil {
		return nil, err
	}
	example, err := parse("the example", part)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", page, err)
	}
	steps := []Fault{example}
	for _, row := range regexp.MustCompile("(?m)^\\| (.*?) \\|.*\\| `nftproxy (.*?)` \\| `(.*?)` \\|").
		FindAllStringSubmatch(part, -1) {
		steps = append(steps, Fault{row[1], strings.Fields(row[2]), 0, []string{"...", row[3], "..."}})
	}
	return steps, nil
}

func readPart(page, heading string) (string, error) {
	data, err := os.ReadFile(page)
	if err != nil {
		return "", fmt.Errorf("read faults: %w", err)
	}
	_, part, found := strings.Cut(string(data), "\n## "+heading+"\n")
	if !found {
		return "", fmt.Errorf("%s has no part %q", page, heading)
	}
	part, _, _ = strings.Cut(part, "\n## ")
	return part, nil
}

// anchor returns the anchor that a heading has on a page.
func anchor(heading string) string {
	kept := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading), "")
	return strings.ReplaceAll(kept, " ", "-")
}

// parse reads the command and its output from a section.
func parse(name, body string) (Fault, error) {
	_, block, found := strings.Cut(body, "\n```\n$ nftproxy ")
	block, _, ended := strings.Cut(block, "\n```")
	if !found || !ended {
		return Fault{}, fmt.Errorf("it has no block that begins with $ nftproxy")
	}
	lines := strings.Split(block, "\n")
	command, code, found := strings.Cut(lines[0], "# exit code ")
	exit, err := strconv.Atoi(code)
	if !found || err != nil {
		return Fault{}, fmt.Errorf("%q does not end with # exit code N", lines[0])
	}
	return Fault{name, strings.Fields(command), exit, lines[1:]}, nil
}

// Differs returns how an output differs from what the page says, and "" if it does not. Both must begin and
// end with the same line.
func (f Fault) Differs(output string) string {
	got := strings.Split(strings.TrimRight(output, "\n"), "\n")
	var pattern strings.Builder
	for _, line := range f.Lines {
		if line == "..." {
			pattern.WriteString("(?:.*\n)*?")
			continue
		}
		pattern.WriteString(words(line) + "\n")
	}
	if regexp.MustCompile("^" + pattern.String() + "$").MatchString(strings.Join(squeezed(got), "\n") + "\n") {
		return ""
	}
	for i, line := range f.Lines {
		match := regexp.MustCompile("^" + words(line) + "$")
		if line != "..." && !slices.ContainsFunc(squeezed(got), match.MatchString) {
			return fmt.Sprintf("line %d of the page is not there: %s\nit printed:\n%s", i+1, line, output)
		}
	}
	return fmt.Sprintf("the lines of the page have another order, or more lines come between:\n%s", output)
}

// squeezed leaves out the spaces that align columns, which depend on lines that the page leaves out.
func squeezed(lines []string) (out []string) {
	for _, line := range lines {
		out = append(out, strings.Join(strings.Fields(line), " "))
	}
	return out
}

// words returns the pattern of a line.
func words(line string) string {
	quoted := regexp.QuoteMeta(strings.Join(strings.Fields(line), " "))
	return strings.ReplaceAll(quoted, `\.\.\.`, ".*")
}
