package licence

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// allowed are the licences that may be linked into a program under Apache-2.0 with no more to it than to pass on their text.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// TestDependencies checks every module that is in nftproxy.
func TestDependencies(t *testing.T) {
	modules, err := Collect("../../..", "./cmd/nftproxy", append(os.Environ(), "GOOS=linux", "CGO_ENABLED=0"))
	if err != nil {
		t.Fatal(err)
	}
	if len(modules) < 20 {
		t.Fatalf("there are only %d modules", len(modules))
	}
	for _, m := range modules {
		var kinds []string
		for _, text := range m.Texts {
			kinds = append(kinds, text.Kinds()...)
		}
		if len(kinds) == 0 {
			t.Errorf("%s: no licence that is known in %d files", m.Path, len(m.Texts))
		}
		for _, kind := range kinds {
			if !slices.Contains(allowed, kind) {
				t.Errorf("%s: %s is not allowed", m.Path, kind)
			}
		}
		t.Logf("%-50s %s", m.Path, strings.Join(slices.Compact(kinds), ", "))
	}
}

func TestKinds(t *testing.T) {
	for text, want := range map[string]string{
		"Apache License\n   Version 2.0, January 2004":     "Apache-2.0",
		"GNU GENERAL PUBLIC LICENSE\nVersion 2, June 1991": "GPL",
		"Do what you like.": "",
		"Redistributions in binary form must reproduce the above\n copyright notice":                                  "BSD-2-Clause",
		"Redistributions in binary form must reproduce the above\n copyright notice. Neither the name of Google Inc.": "BSD-3-Clause",
	} {
		if got := strings.Join(Text{Data: []byte(text)}.Kinds(), " "); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
