package proxier

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nftproxy/nftproxy/internal/configtest"
	"github.com/nftproxy/nftproxy/proxier/desired"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

// Golden cases: those that show something each, with traffic, and those of users' clusters, which have none.
const (
	casesDir    = "../testdata/rules"
	clustersDir = "../testdata/clusters"
)

// cases returns the directories of the golden cases.
func cases(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) == 0 {
		t.Fatalf("%s: no cases", dir)
	}
	return names
}

// allCases returns the directories of all golden cases by their names.
func allCases(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{casesDir, clustersDir} {
		for _, name := range cases(t, dir) {
			all[name] = filepath.Join(dir, name)
		}
	}
	return all
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// TestGoldenRules compares the output of --dry-run with testdata/rules/<case>/ruleset.nft, and the problems
// that it reports with problems.txt.
func TestGoldenRules(t *testing.T) {
	for name, dir := range allCases(t) {
		t.Run(name, func(t *testing.T) {
			if !exists(filepath.Join(dir, "input.yaml")) {
				t.Fatalf("%s has no input.yaml: an orphan", dir)
			}
			manifests := filepath.Join(dir, "input.yaml")
			ruleset, problems := render(t, dir, manifests)
			golden(t, filepath.Join(dir, "ruleset.nft"), ruleset.Bytes())
			golden(t, filepath.Join(dir, "problems.txt"), problems.Bytes())
			again, _ := render(t, dir, manifests)
			if diff := cmp.Diff(ruleset.String(), again.String()); diff != "" {
				t.Errorf("a second rendering differs (-first +second):\n%s", diff)
			}
		})
	}
}

// render returns the ruleset of manifests with the configuration of a case, and the problems with the objects,
// as --dry-run prints them.
func render(t *testing.T, dir, manifests string) (ruleset, problems bytes.Buffer) {
	t.Helper()
	report := func(err error) { problems.WriteString(err.Error() + "\n") }
	build, err := desired.FromManifests(configtest.Case(t, dir, manifests), nil, report)
	if err != nil {
		t.Fatal(err)
	}
	if err := build(nil).WriteText(&ruleset); err != nil {
		t.Fatal(err)
	}
	return ruleset, problems
}

// golden compares got with the file, or rewrites it. No output means no file.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if len(got) == 0 {
			_ = os.Remove(file)
		} else if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil && !(os.IsNotExist(err) && len(got) == 0) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got), rewrite with -update:\n%s", file, diff)
	}
}
