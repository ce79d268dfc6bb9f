// Package licence collects and classifies the licences of everything that is linked into a program.
//
// The image of nftproxy must contain the licence texts of all linked code, because the BSD, MIT and Apache
// licences require it, and TestDependencies fails for a module under any other licence. Collect returns the
// texts; Text.Kinds classifies one. Both work offline, on the module cache and GOROOT.
//
// go-licenses does not replace this package. Version 2.0.1 of github.com/google/go-licenses/v2, run on
// ./cmd/nftproxy, lacks the following:
//   - It ignores the standard library (isStdLib in licenses/library.go), which is linked as well and has the
//     BSD-3-Clause licence.
//   - It reads one licence file per package, the first that it recognizes. "save" leaves out
//     go.yaml.in/yaml/v2/LICENSE.libyaml, which the MIT licence requires. "check --allowed_licenses=MIT"
//     accepts a directory with the MIT licence in LICENSE and the GPL in LICENSE.third-party.
//   - "save" leaves out PATENTS files.
//
// Start reading at Collect.
package licence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Module is a module with packages in the program, or the Go standard library, which has the path "go".
type Module struct {
	Path  string
	Texts []Text // sorted by name
}

// Text is a file with the terms of a licence or with a notice that belongs to one.
type Text struct {
	Name string // relative to the directory of the module
	Data []byte
}

// Collect runs go in dir and returns the modules that pkg is built from, sorted by path, with the texts in
// the directories of the linked packages and in those above them. It returns an error if a module has no
// text.
func Collect(dir, pkg string, env []string) ([]Module, error) {
	sources, err := list(dir, pkg, env)
	if err != nil {
		return nil, fmt.Errorf("collect licences: %w", err)
	}
	texts := map[string][]Text{} // by path of the module
	seen := map[string]bool{}    // directories
	for _, s := range sources {
		for at := s.Dir; !seen[at] && strings.HasPrefix(at, s.Module.Dir); at = filepath.Dir(at) {
			seen[at] = true
			found, err := read(s.Module.Dir, at)
			if err != nil {
				return nil, fmt.Errorf("collect licences: %w", err)
			}
			texts[s.Module.Path] = append(texts[s.Module.Path], found...)
		}
	}
	var modules []Module
	for _, path := range slices.Sorted(maps.Keys(texts)) {
		if len(texts[path]) == 0 {
			return nil, fmt.Errorf("collect licences: module %s has none", path)
		}
		slices.SortFunc(texts[path], func(a, b Text) int { return strings.Compare(a.Name, b.Name) })
		modules = append(modules, Module{path, texts[path]})
	}
	return modules, nil
}

// source is a package in the format of go list.
type source struct {
	Dir    string
	Module *struct{ Path, Dir string }
}

// list returns the packages that pkg is built from. Packages of the standard library become one: its licence
// is in GOROOT, and those below it are for parts that are not linked (BoringCrypto, the commands).
func list(dir, pkg string, env []string) ([]source, error) {
	goroot, err := goCommand(dir, env, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	std := source{Dir: strings.TrimSpace(string(goroot))}
	std.Module = &struct{ Path, Dir string }{"go", std.Dir}
	out, err := goCommand(dir, env, "list", "-deps", "-json=Dir,Module", pkg)
	if err != nil {
		return nil, err
	}
	sources := []source{std}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var s source
		if err := decoder.Decode(&s); errors.Is(err, io.EOF) {
			return sources, nil
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		if s.Module != nil {
			sources = append(sources, s)
		}
	}
}

func goCommand(dir string, env []string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, env, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", args[0], err, &stderr)
	}
	return out, nil
}

// read returns the licences and notices in dir, which is root or below it. It knows them by the names of
// files.
func read(root, dir string) ([]Text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var texts []Text
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		known := slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"},
			func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if !known || e.IsDir() {
			continue
		}
		file := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		relative, err := filepath.Rel(root, file)
		if err != nil {
			return nil, err
		}
		texts = append(texts, Text{relative, data})
	}
	return texts, nil
}

// Kinds returns the SPDX identifiers of the licences in a text. It recognizes the licences that are common in
// Go modules, and returns nothing for a text without any of them.
func (t Text) Kinds() []string {
	const endorse = "to endorse or promote products derived from this software"
	text := strings.Join(strings.Fields(string(t.Data)), " ")
	var kinds []string
	for _, k := range []struct{ spdx, phrase, without string }{
		{"Apache-2.0", "Apache License Version 2.0, January 2004", ""},
		{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy", ""},
		{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose", ""},
		{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose", ""},
		{"BSD-3-Clause", endorse, ""},
		{"BSD-2-Clause", "Redistributions in binary form must reproduce the above copyright notice", endorse},
		{"MPL-2.0", "Mozilla Public License Version 2.0", ""},
		{"GPL", "GNU GENERAL PUBLIC LICENSE", ""},
		{"LGPL", "GNU LESSER GENERAL PUBLIC LICENSE", ""},
	} {
		if strings.Contains(text, k.phrase) && (k.without == "" || !strings.Contains(text, k.without)) {
			kinds = append(kinds, k.spdx)
		}
	}
	return kinds
}
