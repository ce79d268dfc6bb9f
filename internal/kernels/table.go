package main

import (
	"fmt"
	"os"
	"strings"
)

// feature is something that nftproxy can do without. Tests report it, see lab.Feature.
type feature struct{ title, attribute string }

// features are the rows of the table that tests report as attributes.
func features() []feature {
	return []feature{
		{"connections listed by status (5.15)", "status-filter"},
		{"tables with an owner that persist (6.9)", "owned-tables"},
		{"number of elements of a set (6.16)", "element-counts"},
	}
}

// table returns the results in Markdown, a column for each kernel.
func table(results []result) string {
	var b strings.Builder
	row := func(title string, cell func(result) string) {
		b.WriteString("| " + title)
		for _, r := range results {
			b.WriteString(" | " + cell(r))
		}
		b.WriteString(" |\n")
	}
	row("", func(r result) string { return r.version })
	b.WriteString(strings.Repeat("|---", len(results)+1) + "|\n")
	for i, s := range results[0].steps {
		title := s.title
		if s.nftVersion != "" {
			title += ", nft " + s.nftVersion
		}
		row(title, func(r result) string { return r.steps[i].String() })
	}
	for _, f := range features() {
		row(f.title, func(r result) string {
			if value, known := r.attributes[f.attribute]; known {
				return value
			}
			return "not tested"
		})
	}
	return b.String()
}

// The place of the table in the documentation.
const (
	tableBegin = "<!-- This table is generated: make kernels KERNELS=-update -->\n\n"
	tableEnd   = "\n<!-- End of the generated table -->\n"
)

// document writes the table into a page.
func document(page, table string) error {
	data, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(data), tableBegin)
	_, after, foundEnd := strings.Cut(rest, tableEnd)
	if !found || !foundEnd {
		return fmt.Errorf("%s has no place for the table: %s... %s", page, tableBegin, tableEnd)
	}
	return os.WriteFile(page, []byte(before+tableBegin+table+tableEnd+after), 0o644)
}
