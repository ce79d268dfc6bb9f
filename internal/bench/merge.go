package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
)

// runMerge merges the bench.json of several runs on the same machine. It appends the rounds and draws the
// plots again.
func runMerge(args []string) error {
	fs := flag.NewFlagSet("merge", flag.ExitOnError)
	out := fs.String("out", "bench", "`directory` for bench.json and the plots")
	_ = fs.Parse(args) // it exits on an error
	if fs.NArg() == 0 {
		return errors.New("merge: missing bench.json files")
	}
	var merged report
	var all record
	for i, file := range fs.Args() {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("merge %s: %w", file, err)
		}
		if i == 0 {
			merged = r
		}
		for _, f := range r.Figures {
			for _, value := range f.Rounds {
				all.note(f.Part, f.Name, f.Unit, f.Services, f.Contender, value)
			}
		}
		all.failures = append(all.failures, r.Failures...)
	}
	merged.Figures, merged.Failures = all.figures, all.failures
	merged.print(os.Stdout)
	if err := os.MkdirAll(*out, 0o755); err != nil {
		return err
	}
	return errors.Join(merged.write(*out), plots(&all, *out))
}
