package top

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// Styles of text: parameters of SGR (ECMA-48).
const (
	bold   = "1"
	dim    = "2"
	red    = "31"
	yellow = "33"
	cyan   = "36"
)

// Widths of columns. The Service has what it needs of the rest, but no less than minService if there is a
// bar.
const (
	maxPort    = 20
	readyWidth = 9
	rateWidth  = 7
	openWidth  = 7
	minBar     = 8
	maxBar     = 32
	minService = 16
	gap        = 2
)

// table lays rows out in columns.
type table struct {
	service, port, bar int // widths; bar 0: there is none
	colour             bool
}

// newTable fits the columns to a width; 0: as wide as the rows need. endpoints says that they are listed.
func newTable(rows []status.Row, endpoints bool, width int, colour bool) table {
	t := table{service: len("SERVICE"), port: len("PORT"), bar: maxBar, colour: colour}
	for i := range rows {
		t.service = max(t.service, utf8.RuneCountInString(serviceText(&rows[i])))
		t.port = max(t.port, utf8.RuneCountInString(portText(&rows[i])))
		for j := 0; endpoints && j < len(rows[i].Endpoints); j++ {
			t.service = max(t.service, utf8.RuneCountInString(endpointText(&rows[i].Endpoints[j])))
		}
	}
	if width == 0 {
		return t
	}
	t.port = min(t.port, maxPort)
	rest := width - t.port - readyWidth - rateWidth - openWidth - 4*gap
	wanted := max(minService, min(t.service, rest-minBar-gap))
	t.bar = min(maxBar, rest-wanted-gap)
	if t.bar < minBar {
		t.bar = 0
		t.service = max(1, rest)
		return t
	}
	t.service = wanted
	return t
}

// heading names the columns, and says by which they are sorted.
func (t table) heading(order string) string {
	mark := func(name, of string) string {
		if order == of {
			return name + "*"
		}
		return name
	}
	return t.cells(bold, mark("SERVICE", status.OrderName), "PORT", "READY", mark("NEW/S", status.OrderRate),
		mark("OPEN", status.OrderOpen), mark("SHARE", status.OrderConnections), "", "")
}

// row returns a port of a Service.
func (t table) row(r *status.Row) string {
	style := ""
	switch {
	case r.All > 0 && r.Ready == 0:
		style = red
	case r.Ready < r.All:
		style = yellow
	case r.All == 0:
		style = dim
	}
	rate, open := "-", "-"
	if r.Rate != nil {
		rate = number(*r.Rate)
	}
	if r.Open != nil {
		open = number(float64(*r.Open))
	}
	return t.cells("", serviceText(r), portText(r), fmt.Sprintf("%d/%d", r.Ready, r.All), rate, open,
		t.shares(r), style, cyan)
}

// endpoints returns the endpoints of a port, each with its bar.
func (t table) endpoints(r *status.Row) (lines []string) {
	for i := range r.Endpoints {
		e := &r.Endpoints[i]
		state, style := "ready", ""
		switch {
		case e.LeftOut != "":
			state, style = "left out", dim
		case !e.Ready && e.Serving:
			state = "serving"
		case !e.Ready:
			state, style = "not ready", red
		}
		open, bar := "-", ""
		if e.Open != nil {
			open = number(float64(*e.Open))
		}
		if e.Share != nil {
			const percent = 5 // characters
			bar = strings.Repeat(glyph(0), int(*e.Share*float64(max(0, t.bar-percent))+0.5))
			bar = fmt.Sprintf("%3.0f%% %s", 100**e.Share, bar)
		}
		lines = append(lines, t.cells(dim, endpointText(e), clean(e.Node), state, "", open, bar, style, cyan))
	}
	if more := r.All - len(r.Endpoints); more > 0 {
		lines = append(lines, paint(t.colour, dim, fmt.Sprintf("  %d more", more)))
	}
	return lines
}

// cells returns a line of the table. The columns Ready and Share can have styles of their own.
func (t table) cells(style, service, port, ready, rate, open, share, readyStyle, shareStyle string) string {
	space := strings.Repeat(" ", gap)
	if readyStyle == "" {
		readyStyle = style
	}
	line := paint(t.colour, style, pad(service, t.service)+space+pad(port, t.port)+space) +
		paint(t.colour, readyStyle, pad(ready, readyWidth)) + paint(t.colour, style,
		space+padLeft(rate, rateWidth)+space+padLeft(open, openWidth))
	if t.bar == 0 {
		return line
	}
	if shareStyle == "" {
		shareStyle = style
	}
	return line + space + paint(t.colour, shareStyle, fit(share, t.bar))
}

// shares returns a bar of which each endpoint has its part. Two kinds of block take turns.
func (t table) shares(r *status.Row) string {
	var b strings.Builder
	sum, drawn := 0.0, 0
	for i := range r.Endpoints {
		if r.Endpoints[i].Share == nil {
			continue
		}
		sum += *r.Endpoints[i].Share
		until := min(int(sum*float64(t.bar)+0.5), t.bar)
		b.WriteString(strings.Repeat(glyph(i), max(0, until-drawn)))
		drawn = max(drawn, until)
	}
	return b.String()
}

func glyph(i int) string { return [...]string{"█", "▒"}[i%2] }

// serviceText names the Service, with a mark if something is wrong with it.
func serviceText(r *status.Row) string {
	text := clean(r.Namespace + "/" + r.Service)
	for _, f := range r.Frontends {
		if f.Owner != "" {
			return "! " + text
		}
	}
	if len(r.Problems) > 0 {
		return "! " + text
	}
	return text
}

func endpointText(e *status.Endpoint) string {
	return "  " + clean(net.JoinHostPort(e.Address, strconv.Itoa(int(e.Port))))
}

func portText(r *status.Row) string {
	return clean(strings.TrimSpace(fmt.Sprintf("%s %d/%s", r.Name, r.Port, r.Protocol)))
}

// number writes a number in at most six characters.
func number(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 10 && n != float64(int(n)):
		return strconv.FormatFloat(n, 'f', 1, 64)
	case n < 1e5:
		return strconv.FormatFloat(n, 'f', 0, 64)
	case n < 1e7:
		return strconv.FormatFloat(n/1e3, 'f', 0, 64) + "k"
	}
	return strconv.FormatFloat(n/1e6, 'f', 0, 64) + "M"
}

// paint gives a text a style.
func paint(colour bool, style, text string) string {
	if !colour || style == "" || text == "" {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// clean replaces what a terminal would take for a command. Names and messages come from objects.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// fit cuts a text off at a width; 0: it has none.
func fit(text string, width int) string {
	if width == 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

func pad(text string, width int) string {
	text = fit(text, width)
	return text + strings.Repeat(" ", width-utf8.RuneCountInString(text))
}

func padLeft(text string, width int) string {
	text = fit(text, width)
	return strings.Repeat(" ", width-utf8.RuneCountInString(text)) + text
}
