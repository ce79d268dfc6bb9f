package top

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// WriteText writes the table as text, with all problems.
func WriteText(w io.Writer, r *status.Report) error {
	v := &view{query: r.Query, report: r}
	var lines []string
	for _, p := range r.Problems {
		lines = append(lines, clean("! "+p.What+" "+p.Todo))
	}
	if r.MoreProblems > 0 {
		lines = append(lines, fmt.Sprintf("! %d more Services have problems", r.MoreProblems))
	}
	if r.Busy != "" {
		lines = append(lines, v.which())
	} else {
		lines = append(lines, v.table(0)...)
	}
	if more := r.Matched - r.Offset - len(r.Rows); more > 0 && r.Busy == "" {
		lines = append(lines, fmt.Sprintf("%d more: choose with --filter", more))
	}
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ") + "\n"
	}
	_, err := io.WriteString(w, strings.Join(lines, ""))
	return err
}

// WriteJSON writes the report of the daemon.
func WriteJSON(w io.Writer, r *status.Report) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}
