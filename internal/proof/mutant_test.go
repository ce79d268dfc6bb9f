package proof

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// mutant is a mistake in the source of the rules.
type mutant struct {
	what     string // in a few words
	file     string // below rules
	by       string // the check that catches it
	old, new string // old is there once
}

// mutants reads testdata/mutants.txt.
func mutants(t *testing.T) (list []mutant) {
	t.Helper()
	text, err := os.ReadFile("testdata/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(text), "\n\n") {
		head, lines, _ := strings.Cut(block, "\n")
		parts := strings.Split(head, " | ")
		if strings.HasPrefix(head, "#") {
			continue
		}
		if len(parts) != 3 {
			t.Fatalf("testdata/mutants.txt: %q is not what, file and check", head)
		}
		m := mutant{what: parts[0], file: parts[1], by: parts[2]}
		var old, changed []string
		for line := range strings.SplitSeq(strings.TrimSuffix(lines, "\n"), "\n") {
			if gone, ok := strings.CutPrefix(line, "-"); ok {
				old = append(old, gone)
			} else {
				changed = append(changed, strings.TrimPrefix(line, "+"))
			}
		}
		m.old, m.new = strings.Join(old, "\n"), strings.Join(changed, "\n")
		list = append(list, m)
	}
	return list
}

// checks are the tests that may catch a mutant, in their order.
const checks = "TestExhaustion|TestInterpretersAgree|TestNeighbours|TestTransitions"

// few is how many mutants are tried without -all: each is a build.
const few = 2

// TestMutants builds the proof with each mutant and runs it: the check that the mutant names must fail.
func TestMutants(t *testing.T) {
	list := mutants(t)
	if len(list) < 50 {
		t.Errorf("there are %d mutants, want at least 50", len(list))
	}
	if !*all {
		list = list[:few]
	}
	for _, m := range list {
		t.Run(strings.ReplaceAll(m.what, " ", "-"), func(t *testing.T) {
			if by := m.caughtBy(t); by != m.by {
				t.Errorf("%s: caught by %q, want %q", m.what, by, m.by)
			}
		})
	}
}

// caughtBy returns the check that fails with the mutant: the one that the mutant names, if it does, otherwise
// the first one, or "".
func (m mutant) caughtBy(t *testing.T) string {
	t.Helper()
	program := m.build(t)
	if by := firstFailure(program, m.by); by != "" {
		return by
	}
	return firstFailure(program, checks)
}

// firstFailure runs checks of a program and returns the first one that fails.
func firstFailure(program, checks string) string {
	run := exec.Command(program, "-test.run", "^("+checks+")$", "-test.failfast", "-sample", "2000")
	out, err := run.CombinedOutput()
	failed := regexp.MustCompile(`(?m)^--- FAIL: (\w+)`).FindSubmatch(out)
	switch {
	case err == nil:
		return ""
	case failed == nil:
		return "panic"
	}
	return string(failed[1])
}

// build builds this test with the mutant.
func (m mutant) build(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join("../../rules", m.file))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 || m.old == m.new {
		t.Fatalf("%s has %q %d times, want it once and changed", m.file, m.old, n)
	}
	changed, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {file: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		changed: strings.Replace(string(source), m.old, m.new, 1), overlay: string(replaced)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "proof.test")
	build := exec.Command("go", "test", "-c", "-ldflags=-s -w", "-overlay", overlay, "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the mutant: %v\n%s", err, out)
	}
	return program
}

// TestMutantsAreListed compares the table in docs/design.md with the mutants.
func TestMutantsAreListed(t *testing.T) {
	page, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, m := range mutants(t) {
		want = append(want, fmt.Sprintf("| %s | `%s` | %s |", m.what, m.file, m.by))
	}
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "| ") && slices.ContainsFunc(strings.Split(checks, "|"), func(by string) bool {
			return strings.HasSuffix(line, "| "+by+" |")
		}) {
			got = append(got, line)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the list of mutants in docs/design.md (-want +got):\n%s", diff)
	}
}
