package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// group is rows with a common explanation.
type group struct {
	words string
	rows  []lab.Row
}

const columns = "  %-8s %-24s %-31s %-23s %s\n"

// table sends the requests of all groups and prints a line for each row.
func (s *show) table(ctx context.Context, groups []group) error {
	fmt.Fprintf(s.out, columns, "from", "to", "answered by", "source that pods see", "result")
	for _, g := range groups {
		for i, r := range g.rows {
			words := g.words
			if i > 0 {
				words = ""
			}
			if _, err := s.row(ctx, words, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// row sends the requests of one row and prints words, if any, and the line of the row. It returns an error
// only when ctx has ended.
func (s *show) row(ctx context.Context, words string, r lab.Row) (lab.Report, error) {
	report, wrong := s.lab.Check(ctx, r)
	if ctx.Err() != nil {
		return report, context.Cause(ctx)
	}
	if words != "" {
		fmt.Fprintln(s.out, words)
	}
	s.line(r, report, wrong)
	return report, nil
}

// line prints the results of a row and counts the row if they are wrong.
func (s *show) line(r lab.Row, report lab.Report, wrong error) {
	verdict := "ok"
	if wrong != nil {
		verdict = "WRONG"
		s.wrong++
	}
	fmt.Fprintf(s.out, columns, r.From, r.To, answers(report), seen(report), verdict)
	if wrong != nil {
		fmt.Fprintf(s.out, "    %v\n", wrong)
	}
}

// answers returns how often each pod answered, and how many requests had another outcome.
func answers(report lab.Report) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(report.By)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, report.By[name]))
	}
	for _, other := range []struct {
		outcome string
		n       int
	}{{"refused", report.Refused}, {"dropped", report.Dropped}, {"failed", report.Failed}} {
		if other.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", other.outcome, other.n))
		}
	}
	return strings.Join(parts, ", ")
}

func seen(report lab.Report) string {
	var parts []string
	for _, ip := range slices.SortedFunc(maps.Keys(report.Sources), netip.Addr.Compare) {
		parts = append(parts, ip.String())
	}
	return strings.Join(parts, ", ")
}
