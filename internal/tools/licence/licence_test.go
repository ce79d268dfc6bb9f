package licence

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed are the licences under which code may be linked into a program under Apache-2.0 if their texts come
// with the program.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// TestDependencies checks every licence of every module in nftproxy.
func TestDependencies(t *testing.T) {
	modules, err := Collect("../../..", "./cmd/nftproxy", append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0"))
	if err != nil {
		t.Fatal(err)
	}
	if len(modules) < 20 {
		t.Fatalf("found only %d modules", len(modules))
	}
	for _, m := range modules {
		licences := 0
		for _, text := range m.Texts {
			kinds := text.Kinds()
			licences += len(kinds)
			t.Logf("%-50s %-30s %s", m.Path, text.Name, strings.Join(kinds, ", "))
			if file := path.Base(text.Name); len(kinds) == 0 &&
				!strings.HasPrefix(file, "NOTICE") && !strings.HasPrefix(file, "PATENTS") {
				t.Errorf("%s: unknown licence in %s", m.Path, text.Name)
			}
			for _, kind := range kinds {
				if !slices.Contains(allowed, kind) {
					t.Errorf("%s: %s in %s is not allowed", m.Path, kind, text.Name)
				}
			}
		}
		if licences == 0 {
			t.Errorf("%s: no known licence", m.Path)
		}
	}
}

// TestCollect checks that Collect finds every text that applies to a linked package, and only those.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string]string{
		"go.mod":                   "module example.com/program\n\ngo 1.26\n",
		"main.go":                  "package main\nimport _ \"example.com/program/copied/part\"\nfunc main() {}\n",
		"LICENSE":                  "1",
		"LICENSE.libyaml":          "2",
		"copied/COPYING":           "3",
		"copied/part/part.go":      "package part\n",
		"copied/part/notice.txt":   "4",
		"copied/unused/unused.go":  "package unused\n",
		"copied/unused/LICENSE.md": "5",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	modules, err := Collect(dir, ".", append(os.Environ(), "GOWORK=off"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range modules {
		for _, text := range m.Texts {
			if m.Path != "go" {
				got = append(got, m.Path+": "+text.Name+" "+string(text.Data))
			} else if text.Name == "LICENSE" {
				got = append(got, "the standard library")
			}
		}
	}
	want := []string{
		"example.com/program: LICENSE 1",
		"example.com/program: LICENSE.libyaml 2",
		"example.com/program: copied/COPYING 3",
		"example.com/program: copied/part/notice.txt 4",
		"the standard library",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestKinds(t *testing.T) {
	const bsd = "Redistributions in binary form must reproduce the above\n copyright notice"
	for text, want := range map[string]string{
		"Apache License\n   Version 2.0, January 2004":     "Apache-2.0",
		"GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991": "GPL",
		"Do what you like.": "",
		bsd:                 "BSD-2-Clause",
		bsd + ". The names of its contributors may not be used to endorse or promote\n" +
			"products derived from this software": "BSD-3-Clause",
	} {
		if got := strings.Join(Text{Data: []byte(text)}.Kinds(), " "); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
