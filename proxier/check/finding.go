package check

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// State says what a Finding means.
type State string

const (
	OK      State = "ok"
	Note    State = "note"    // it works, and the operator should know
	Problem State = "problem" // it does not work until the operator changes something
)

// Finding is one line of the report.
type Finding struct {
	Subject string `json:"subject"`
	State   State  `json:"state"`
	Detail  string `json:"detail"`
	Advice  string `json:"advice,omitempty"` // what to do, if anything
}

// Fit reports whether the findings have no problem.
func Fit(findings []Finding) bool { return count(findings, Problem) == 0 }

func count(findings []Finding, s State) (n int) {
	for _, f := range findings {
		if f.State == s {
			n++
		}
	}
	return n
}

// WriteText writes the report as a table for a person to read.
func WriteText(w io.Writer, findings []Finding) error {
	wide := 0
	for _, f := range findings {
		wide = max(wide, len(f.Subject))
	}
	var b strings.Builder
	for _, f := range findings {
		fmt.Fprintf(&b, "%-7s  %-*s  %s\n", f.State, wide, f.Subject, f.Detail)
		if f.Advice != "" {
			fmt.Fprintf(&b, "%-7s  %-*s  -> %s\n", "", wide, "", f.Advice)
		}
	}
	fmt.Fprintf(&b, "\nproblems: %d, notes: %d\n", count(findings, Problem), count(findings, Note))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteJSON writes the report as {"fit": ..., "findings": [...]}.
func WriteJSON(w io.Writer, findings []Finding) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	report := struct {
		Fit      bool      `json:"fit"`
		Findings []Finding `json:"findings"`
	}{Fit(findings), findings}
	if err := encoder.Encode(report); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
