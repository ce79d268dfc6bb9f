package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is what bench.json holds.
type report struct {
	Time       time.Time         `json:"time"`
	Kernel     string            `json:"kernel"`
	CPUs       int               `json:"cpus"`
	LoadBefore string            `json:"loadBefore"` // of 1, 5 and 15 minutes
	Versions   map[string]string `json:"versions"`
	Rounds     int               `json:"rounds"`
	Figures    []*figure         `json:"figures"`
}

func newReport(o options, list []contender) *report {
	r := &report{Time: time.Now().UTC(), CPUs: runtime.NumCPU(), LoadBefore: load(), Rounds: o.rounds, Versions: map[string]string{}}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	for _, c := range list {
		if c.version != "" {
			r.Versions[c.name] = c.version
		}
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

// print prints a table: the median of the rounds with the least and the most of them, and how many times
// that of nftproxy it is for what it is compared with.
func (r *report) print(out io.Writer) {
	fmt.Fprintf(out, "\nLinux %s, %d CPUs, load %s before, %s after; %d rounds: median (least-most)\n", r.Kernel, r.CPUs, r.LoadBefore, load(), r.Rounds)
	for name, version := range r.Versions {
		fmt.Fprintf(out, "%s: %s\n", name, version)
	}
	rec := record{r.Figures}
	who := rec.contenders()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n\tunit\tservices\t%s\tx nftproxy\t\n", strings.Join(who, "\t"))
	for _, name := range rec.names() {
		figures := rec.of(name)
		for len(figures) > 0 {
			size := figures[0].Services
			n := 0
			for n < len(figures) && figures[n].Services == size {
				n++
			}
			printRow(w, figures[:n], who)
			figures = figures[n:]
		}
	}
	_ = w.Flush() // out is a terminal or a pipe
}

// printRow prints the figures of one name and size.
func printRow(w io.Writer, row []*figure, who []string) {
	cells := []string{row[0].Name, row[0].Unit, strconv.Itoa(row[0].Services)}
	medians := map[string]float64{}
	for _, c := range who {
		i := slices.IndexFunc(row, func(f *figure) bool { return f.Contender == c })
		if i < 0 {
			cells = append(cells, "")
			continue
		}
		f := row[i]
		medians[c] = f.median()
		cell := short(f.median())
		if len(f.Rounds) > 1 {
			cell += fmt.Sprintf(" (%s-%s)", short(slices.Min(f.Rounds)), short(slices.Max(f.Rounds)))
		}
		cells = append(cells, cell)
	}
	ratio := ""
	if ours, theirs := medians["nftproxy"], cmp.Or(medians["kube-proxy"], medians["before"]); ours > 0 && theirs > 0 {
		ratio = short(theirs / ours)
	}
	fmt.Fprintln(w, strings.Join(append(cells, ratio), "\t")+"\t")
}

// short prints three digits that count.
func short(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
