package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is the content of bench.json.
type report struct {
	Time       time.Time         `json:"time"`
	Kernel     string            `json:"kernel"`
	CPUs       int               `json:"cpus"`
	LoadBefore string            `json:"loadBefore"` // average over 1, 5 and 15 minutes
	Versions   map[string]string `json:"versions"`
	Rounds     int               `json:"rounds"`
	Figures    []*figure         `json:"figures"`
	Failures   []string          `json:"failures,omitempty"`
}

func newReport(o options, list []contender) *report {
	r := &report{
		Time: time.Now().UTC(), CPUs: runtime.NumCPU(), LoadBefore: load(), Rounds: o.rounds,
		Versions: map[string]string{},
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		// Without the suffix of the distribution.
		r.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	}
	for _, c := range list {
		if c.version != "" {
			r.Versions[c.name] = c.version
		}
	}
	if version, err := exec.Command("nft", "--version").Output(); err == nil { // used by kube-proxy
		r.Versions["nft"] = strings.TrimSpace(string(version))
	}
	return r
}

func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

func (r *report) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bench.json"), append(text, '\n'), 0o644)
}

// print prints a table for each part: the median of the rounds with their minimum and maximum and, except for
// nftproxy, the ratio to the median of nftproxy.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\nLinux %s, %d CPUs, load average %s before and %s after; %d rounds: "+
		"median (min-max) xfactor relative to nftproxy\n", r.Kernel, r.CPUs, r.LoadBefore, load(), r.Rounds)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(out, "%s: %s\n", name, r.Versions[name])
	}
	for _, part := range parts() {
		other := func(f *figure) bool { return f.Part != part }
		rec := record{figures: slices.DeleteFunc(slices.Clone(r.Figures), other)}
		if len(rec.figures) == 0 {
			continue
		}
		who := rec.contenders()
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(w, "\n%s\tunit\tservices\t%s\t\n", part, strings.Join(who, "\t"))
		for _, name := range rec.names() {
			for figures := rec.of(name); len(figures) > 0; {
				n := 1
				for n < len(figures) && figures[n].Services == figures[0].Services {
					n++
				}
				printRow(w, figures[:n], who)
				figures = figures[n:]
			}
		}
		_ = w.Flush() // out is a terminal or a pipe
	}
	for _, f := range r.Failures {
		fmt.Fprintf(out, "\nfailed: %s\n", f)
	}
}

// printRow prints the figures with one name and number of Services.
func printRow(w io.Writer, row []*figure, who []string) {
	cells := []string{row[0].Name, row[0].Unit, strconv.Itoa(row[0].Services)}
	by := map[string]*figure{}
	for _, f := range row {
		by[f.Contender] = f
	}
	for _, c := range who {
		f := by[c]
		if f == nil {
			cells = append(cells, "")
			continue
		}
		cell := short(f.median())
		if len(f.Rounds) > 1 {
			cell += fmt.Sprintf(" (%s-%s)", short(slices.Min(f.Rounds)), short(slices.Max(f.Rounds)))
		}
		if ours := by["nftproxy"]; ours != nil && ours != f && ours.median() > 0 {
			cell += " x" + short(f.median()/ours.median())
		}
		cells = append(cells, cell)
	}
	fmt.Fprintln(w, strings.Join(cells, "\t")+"\t")
}

// short formats v with three significant digits.
func short(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
