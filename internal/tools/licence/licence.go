// Package licence finds the licences of what is linked into a program.
package licence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Module is a module that packages of are in a program, or the Go standard library, whose path is "go".
type Module struct {
	Path  string
	Texts []Text
}

// Text is a file with the terms of a licence, or a notice that goes with it.
type Text struct {
	Name string
	Data []byte
}

// listed is what go list says of a package.
type listed struct {
	Module *struct {
		Path, Dir string
	}
}

// Collect returns the modules that packages of are in pkg, sorted by path, and the standard library. It runs go in dir. A
// module without a licence is an error.
func Collect(dir, pkg string, env []string) ([]Module, error) {
	dirs, err := moduleDirs(dir, pkg, env)
	if err != nil {
		return nil, fmt.Errorf("collect licences: %w", err)
	}
	var modules []Module
	for path, dir := range dirs {
		m := Module{Path: path}
		if m.Texts, err = texts(dir); err != nil {
			return nil, fmt.Errorf("collect licences: %w", err)
		}
		if len(m.Texts) == 0 {
			return nil, fmt.Errorf("collect licences: %s has none", path)
		}
		modules = append(modules, m)
	}
	slices.SortFunc(modules, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

// moduleDirs returns the directories of the modules by their paths.
func moduleDirs(dir, pkg string, env []string) (map[string]string, error) {
	out, err := goCommand(dir, env, "list", "-deps", "-json=Module", pkg)
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read go list: %w", err)
		}
		if p.Module != nil {
			dirs[p.Module.Path] = p.Module.Dir
		}
	}
	goroot, err := goCommand(dir, env, "env", "GOROOT")
	dirs["go"] = strings.TrimSpace(string(goroot))
	return dirs, err
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

// texts returns the files in dir that are named as such files are, sorted.
func texts(dir string) ([]Text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []Text
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		known := slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS"},
			func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		if !known || e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		found = append(found, Text{Name: e.Name(), Data: data})
	}
	return found, nil
}

// Kinds returns the SPDX identifiers of the licences in a text, as far as they are of the kinds that it knows; nothing if it
// knows none of them.
func (t Text) Kinds() []string {
	text := strings.Join(strings.Fields(string(t.Data)), " ")
	var kinds []string
	for _, k := range []struct{ spdx, phrase, without string }{
		{"Apache-2.0", "Apache License Version 2.0, January 2004", ""},
		{"MIT", "Permission is hereby granted, free of charge, to any person obtaining a copy", ""},
		{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose", ""},
		{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose", ""},
		{"BSD-3-Clause", "Neither the name of", ""},
		{"BSD-2-Clause", "Redistributions in binary form must reproduce the above copyright notice", "Neither the name of"},
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
