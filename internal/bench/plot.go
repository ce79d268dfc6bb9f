package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

const memoryFigure = "memory: resident"

// drawn returns the names of the figures with a plot, by file.
func drawn() map[string]string {
	return map[string]string{
		"change":  "endpoint replaced: p50",
		"cpu":     "endpoint replaced: CPU",
		"start":   "start to programmed",
		"sync":    "first sync",
		"memory":  memoryFigure,
		"connect": "first packet, last Service: p50",
	}
}

// plots writes a plot for each of these figures that has values for several numbers of Services.
func plots(r *record, dir string) error {
	for file, name := range drawn() {
		figures := r.of(name)
		if name == memoryFigure { // the floor keeps all objects, so its memory is not a lower bound
			figures = slices.DeleteFunc(figures, func(f *figure) bool { return f.Contender == floorName })
		}
		if len(figures) == 0 || figures[0].Services == figures[len(figures)-1].Services {
			continue
		}
		if err := draw(figures, filepath.Join(dir, file+".svg")); err != nil {
			return fmt.Errorf("plot %s: %w", name, err)
		}
	}
	return nil
}

// points are the medians of a contender, with minimum and maximum.
type points struct {
	plotter.XYs
	plotter.YErrors
}

// draw draws a figure. Both axes are logarithmic, except for memory, which has a linear axis.
func draw(figures []*figure, file string) error {
	p := plot.New()
	p.Title.Text = figures[0].Name
	p.X.Label.Text, p.Y.Label.Text = "Services, 3 endpoints each", figures[0].Unit
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	linear := figures[0].Name == memoryFigure
	if !linear {
		p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	colors := map[string]color.Color{
		"nftproxy": color.RGBA{0x1b, 0x6e, 0xc2, 0xff}, "kube-proxy": color.RGBA{0xd0, 0x5a, 0x1e, 0xff},
		"kube-proxy iptables": color.RGBA{0x8a, 0x2b, 0x7d, 0xff},
	}
	rec := record{figures: figures}
	for _, who := range rec.contenders() {
		var pts points
		for _, f := range figures {
			if m := f.median(); f.Contender == who && m > 0 {
				pts.XYs = append(pts.XYs, plotter.XY{X: float64(f.Services), Y: m})
				low, high := m-slices.Min(f.Rounds), slices.Max(f.Rounds)-m
				pts.YErrors = append(pts.YErrors, struct{ Low, High float64 }{low, high})
			}
		}
		if len(pts.XYs) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(pts.XYs)
		if err != nil {
			return err
		}
		bars, err := plotter.NewYErrorBars(pts)
		if err != nil {
			return err
		}
		c, ok := colors[who]
		if !ok {
			c = color.Gray{0x80}
		}
		line.Color, dots.Color, bars.Color = c, c, c
		p.Add(line, dots, bars)
		p.Legend.Add(who, line, dots)
	}
	p.X.Min, p.X.Max = p.X.Min*0.8, p.X.Max*1.6 // room for the labels
	if p.Y.Min, p.Y.Max = span(figures); linear {
		p.Y.Min = 0
	}
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, file)
}

// span returns the range of an axis that shows all values.
func span(figures []*figure) (low, high float64) {
	for i, f := range figures {
		least, most := slices.Min(f.Rounds), slices.Max(f.Rounds)
		if i == 0 || least < low {
			low = least
		}
		high = max(high, most)
	}
	return max(low, high/1e5) * 0.8, high * 1.25
}
