package top

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// view is what the screen shows, and what the keys change.
type view struct {
	query  status.Query
	report *status.Report
	err    error // of the last request

	width, height int
	colour        bool

	endpoints bool   // are listed below each port
	help      bool   // instead of the table
	editing   bool   // the filter
	before    string // the filter before it was edited
}

// orders returns the orders of rows, as the key for the next one goes through them, with their names for
// people.
func orders() [][2]string {
	return [][2]string{{status.OrderRate, "new connections per second"}, {status.OrderOpen, "open connections"},
		{status.OrderConnections, "all connections"}, {status.OrderName, "name"}}
}

// orderIndex returns the place of the order in orders.
func (v *view) orderIndex() int {
	return max(0, slices.IndexFunc(orders(), func(o [2]string) bool { return o[0] == v.query.Order }))
}

// press changes the view as a key says, and reports whether it ends the command.
func (v *view) press(k key) (quit bool) {
	if v.editing {
		return v.edit(k)
	}
	page := max(1, v.room()-1)
	switch k {
	case 'q', keyInterrupt:
		return true
	case '/':
		v.editing, v.before, v.help = true, v.query.Filter, false
	case keyEscape:
		if !v.help {
			v.setFilter("")
		}
		v.help = false
	case '?', 'h':
		v.help = !v.help
	case 'e':
		v.endpoints = !v.endpoints
	case 's', keyRight:
		v.sort(1)
	case 'S', keyLeft:
		v.sort(-1)
	case keyDown, 'j':
		v.scroll(v.query.Offset + 1)
	case keyUp, 'k':
		v.scroll(v.query.Offset - 1)
	case keyPageDown, ' ':
		v.scroll(v.query.Offset + page)
	case keyPageUp:
		v.scroll(v.query.Offset - page)
	case keyHome, 'g':
		v.scroll(0)
	case keyEnd, 'G':
		v.scroll(v.report.Matched - page)
	}
	return false
}

// edit changes the filter, which takes effect at once.
func (v *view) edit(k key) (quit bool) {
	switch {
	case k == keyInterrupt:
		return true
	case k == keyEnter:
		v.editing = false
	case k == keyEscape:
		v.editing = false
		v.setFilter(v.before)
	case k == keyBackspace && v.query.Filter != "":
		v.setFilter(v.query.Filter[:len(v.query.Filter)-1])
	case k >= ' ':
		v.setFilter(v.query.Filter + string(rune(k)))
	}
	return false
}

func (v *view) setFilter(filter string) { v.query.Filter, v.query.Offset = filter, 0 }

func (v *view) sort(by int) {
	all := orders()
	v.query.Order, v.query.Offset = all[(v.orderIndex()+by+len(all))%len(all)][0], 0
}

func (v *view) scroll(to int) { v.query.Offset = max(0, min(to, v.report.Matched-1)) }

// room returns how many lines there are for rows.
func (v *view) room() int { return max(0, v.height-len(v.head())-2) }

// lines returns the picture.
func (v *view) lines() []string {
	lines := v.head()
	if v.help {
		lines = append(lines, v.helpLines()...)
	} else {
		lines = append(lines, v.table(v.width)...)
	}
	if len(lines) > v.height-1 {
		lines = lines[:max(0, v.height-1)]
	}
	for len(lines) < v.height-1 {
		lines = append(lines, "")
	}
	return append(lines, v.foot())
}

// table returns the rows with a heading.
func (v *view) table(width int) []string {
	t := newTable(v.report.Rows, v.endpoints, width, v.colour)
	lines := []string{t.heading(v.query.Order)}
	for i := range v.report.Rows {
		lines = append(lines, t.row(&v.report.Rows[i]))
		if v.endpoints {
			lines = append(lines, t.endpoints(&v.report.Rows[i])...)
		}
	}
	return lines
}

// maxProblems bounds the problems on the screen, which leave room for the table. `nftproxy top --once` has
// all.
const maxProblems = 3

// head says which node this is, what is wrong with it, and which rows there are.
func (v *view) head() []string {
	s := &v.report.Summary
	text := fmt.Sprintf("nftproxy %s on %s, Linux %s: %d Services, %s", s.Version, s.Node, s.Kernel,
		s.Services, synced(s))
	lines := []string{v.line(bold, text)}
	if v.err != nil {
		lines = append(lines, v.line(red, "no answer since "+v.report.At.Local().Format(time.TimeOnly)+": "+
			v.err.Error()))
	}
	problems := v.report.Problems
	for _, p := range problems[:min(len(problems), maxProblems)] {
		lines = append(lines, v.line(yellow, "! "+p.What+" "+p.Todo))
	}
	if more := len(problems) + v.report.MoreProblems - maxProblems; more > 0 {
		lines = append(lines, v.line(yellow, fmt.Sprintf("! %d more: nftproxy top --once lists them", more)))
	}
	return append(lines, v.line("", v.which()))
}

// which says which rows there are.
func (v *view) which() string {
	r := v.report
	if r.Busy != "" {
		return "no rows: " + r.Busy
	}
	text := fmt.Sprintf("%d ports by %s", r.Total, orders()[v.orderIndex()][1])
	if v.query.Filter != "" || v.editing {
		text = fmt.Sprintf("%d of %s, filter: %s", r.Matched, text, v.query.Filter)
		if v.editing {
			text += "_"
		}
	}
	if r.Offset > 0 {
		text += fmt.Sprintf(", from number %d", r.Offset+1)
	}
	return text
}

// synced says how current the rules are.
func synced(s *status.Summary) string {
	switch {
	case s.LastSync.IsZero():
		return "not synced yet"
	case s.SyncError != "":
		return "the last sync failed"
	}
	return fmt.Sprintf("synced %v ago", time.Duration(s.LastSyncAge*float64(time.Second)).Round(time.Second))
}

func (v *view) foot() string {
	if v.editing {
		return v.line(dim, "type words of a name or address   Enter keep   Esc undo")
	}
	return v.line(dim, "q quit   ? help   s sort   / filter   e endpoints   arrows scroll")
}

func (v *view) helpLines() []string {
	text := `
  s, right, left        sort by the next or the previous order
  /                     filter: each word is a part of a name, address or port
  Esc                   no filter
  e                     list the endpoints of each port, or do not
  up, down, PgUp, PgDn  scroll; Home and End go to the first and the last
  ?                     this help, or the table
  q, Ctrl-C             quit

  READY   endpoints that are ready, of all in the EndpointSlices
  NEW/S   connections that began per second, between the last two looks at the counters
  OPEN    connections that are open now; - if they are not counted
  SHARE   of each endpoint in the connections since it has been in the table, side by side
  !       a part of the Service is left out, or another one has its address:
          nftproxy explain NAMESPACE/NAME:PORT says why`
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, v.line("", strings.TrimSuffix(line, "\n")))
	}
	return lines
}

// line returns a text that fits the width.
func (v *view) line(style, text string) string {
	return paint(v.colour, style, fit(clean(text), v.width))
}
