package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Report counts the outcomes of requests.
type Report struct {
	Sent    int
	By      map[string]int     // answers by server
	Sources map[netip.Addr]int // answers by the sender's address as the server saw it
	Refused int
	Dropped int
	Failed  int
	Err     error // of the first request without an answer
}

// Lost returns how many requests got no answer.
func (r Report) Lost() int { return r.Refused + r.Dropped + r.Failed }

// String returns the report in a few words, for a table: "pod-a 9, pod-c 15; seen as 192.0.2.1".
func (r Report) String() string {
	var parts []string
	if len(r.By) > 0 {
		parts = append(parts, counts(r.By), "seen as "+strings.Join(sourceNames(r.Sources), ", "))
	}
	for _, lost := range []struct {
		outcome Outcome
		n       int
	}{{Refused, r.Refused}, {Dropped, r.Dropped}, {Failed, r.Failed}} {
		if lost.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", lost.outcome, lost.n))
		}
	}
	if r.Failed > 0 && r.Err != nil {
		parts = append(parts, r.Err.Error())
	}
	if len(parts) == 0 {
		return "nothing sent"
	}
	return strings.Join(parts, "; ")
}

func counts(by map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, by[name]))
	}
	return strings.Join(parts, ", ")
}

func sourceNames(sources map[netip.Addr]int) []string {
	var names []string
	for _, ip := range slices.SortedFunc(maps.Keys(sources), netip.Addr.Compare) {
		names = append(names, ip.String())
	}
	return names
}

// add counts one more result.
func (r *Report) add(result Result) {
	if r.By == nil {
		r.By, r.Sources = map[string]int{}, map[netip.Addr]int{}
	}
	r.Sent++
	switch result.Outcome {
	case Answered:
		r.By[result.By]++
		r.Sources[result.Source]++
	case Refused:
		r.Refused++
	case Dropped:
		r.Dropped++
	default:
		r.Failed++
	}
	if r.Err == nil {
		r.Err = result.Err
	}
}

// Check makes the requests of a row. Its error describes each outcome that differs from the row. The report
// is complete unless ctx ended.
func (l *Lab) Check(ctx context.Context, row Row) (Report, error) {
	results, err := l.ask(ctx, row)
	var report Report
	for _, result := range results {
		report.add(result)
	}
	if err == nil {
		err = l.judge(row, report, results)
	}
	if err != nil {
		return report, fmt.Errorf("%s: %w", row, err)
	}
	return report, nil
}

// ask makes the requests of a row, several at a time unless their order matters.
func (l *Lab) ask(ctx context.Context, row Row) ([]Result, error) {
	atOnce, timeout := 8, answerTimeout
	if row.Sticky {
		atOnce = 1
	}
	if row.Dropped {
		timeout = silenceTimeout
	}
	var (
		mu      sync.Mutex
		results []Result
		workers sync.WaitGroup
	)
	turns := make(chan struct{})
	for range min(atOnce, row.count()) {
		workers.Go(func() {
			for range turns {
				result := l.request(row.From, row.To.Proto, row.To.Addr, timeout)
				mu.Lock()
				results = append(results, result)
				mu.Unlock()
			}
		})
	}
	var err error
	for i := 0; i < row.count() && err == nil; i++ {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	close(turns)
	workers.Wait()
	return results, err
}

// judge compares the results of a row with the expected outcome.
func (l *Lab) judge(row Row, report Report, results []Result) error {
	if row.Refused || row.Dropped {
		want, got := Refused, report.Refused
		if row.Dropped {
			want, got = Dropped, report.Dropped
		}
		if got != report.Sent {
			return fmt.Errorf("%s (of %d), want all %s", report, report.Sent, want)
		}
		return nil
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(report.By)) {
		if !slices.Contains(row.By, name) {
			wrong = append(wrong, fmt.Sprintf("answered by %s (%d of %d), want only %s",
				name, report.By[name], report.Sent, strings.Join(row.By, ", ")))
		}
	}
	if row.Sticky && len(report.By) > 1 {
		wrong = append(wrong,
			fmt.Sprintf("answered by %s (of %d), want always the same", counts(report.By), report.Sent))
	}
	for _, name := range row.By {
		if !row.Sticky && report.By[name] == 0 {
			wrong = append(wrong, fmt.Sprintf("not answered by %s (0 of %d)", name, report.Sent))
		}
	}
	if report.Lost() > 0 {
		wrong = append(wrong, fmt.Sprintf("refused %d, dropped %d, failed %d (of %d): %v",
			report.Refused, report.Dropped, report.Failed, report.Sent, report.Err))
	}
	wrong = append(wrong, l.wrongSources(row, results)...)
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// wrongSources describes the servers that saw the sender under another address than the row expects.
func (l *Lab) wrongSources(row Row, results []Result) []string {
	seen := map[string]int{}
	for _, r := range results {
		if r.Outcome != Answered || l.sourceMatches(row.Source, r) {
			continue
		}
		want := row.Source
		switch want {
		case "unchanged":
			want = "its own " + r.Local.String()
		case "node":
			want = "an address of the node"
		}
		seen[fmt.Sprintf("seen by %s as %s, want %s", r.By, r.Source, want)]++
	}
	var wrong []string
	for _, text := range slices.Sorted(maps.Keys(seen)) {
		wrong = append(wrong, fmt.Sprintf("%s (%d of %d)", text, seen[text], len(results)))
	}
	return wrong
}

func (l *Lab) sourceMatches(want string, r Result) bool {
	switch want {
	case "":
		return true
	case "unchanged":
		return r.Source == r.Local
	case "node":
		return l.nodeAddrs[r.Source]
	}
	literal, err := netip.ParseAddr(want)
	return err == nil && r.Source == literal
}
