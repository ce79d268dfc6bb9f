package main

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// figure has the values of one measurement of a contender at a number of Services, one value per round.
type figure struct {
	Part      string    `json:"part"`
	Name      string    `json:"name"`
	Unit      string    `json:"unit"`
	Services  int       `json:"services"`
	Contender string    `json:"contender"`
	Rounds    []float64 `json:"rounds"`
}

func (f *figure) median() float64 { return quantile(f.Rounds, 0.5) }

// quantile returns the quantile part (0 to 1) of values, with linear interpolation.
func quantile(values []float64, part float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := part * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-float64(below))*(sorted[above]-sorted[below])
}

// record has all figures, in the order of their first values.
type record struct {
	figures  []*figure
	failures []string // measurements that failed, with errors
}

// note adds the value of a round.
func (r *record) note(part, name, unit string, services int, contender string, value float64) {
	i := slices.IndexFunc(r.figures, func(f *figure) bool {
		return f.Name == name && f.Services == services && f.Contender == contender
	})
	if i < 0 {
		i = len(r.figures)
		r.figures = append(r.figures,
			&figure{Part: part, Name: name, Unit: unit, Services: services, Contender: contender})
	}
	r.figures[i].Rounds = append(r.figures[i].Rounds, value)
}

// names returns the names of the figures, in order.
func (r *record) names() []string {
	var names []string
	for _, f := range r.figures {
		if !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	return names
}

// contenders returns the names of the contenders, in order.
func (r *record) contenders() []string {
	var names []string
	for _, f := range r.figures {
		if !slices.Contains(names, f.Contender) {
			names = append(names, f.Contender)
		}
	}
	return names
}

// of returns the figures with that name, sorted by the number of Services.
func (r *record) of(name string) []*figure {
	var list []*figure
	for _, f := range r.figures {
		if f.Name == name {
			list = append(list, f)
		}
	}
	slices.SortStableFunc(list, func(a, b *figure) int { return cmp.Compare(a.Services, b.Services) })
	return list
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func durations(list []time.Duration, in func(time.Duration) float64) []float64 {
	values := make([]float64, len(list))
	for i, d := range list {
		values[i] = in(d)
	}
	return values
}
