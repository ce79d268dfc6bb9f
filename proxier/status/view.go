package status

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"
)

// refreshEvery is how often a page that refreshes itself is loaded again, in seconds.
const refreshEvery = 5

// view is a Report for a person, with the choices of the page that are not part of it.
type view struct {
	*Report
	refresh bool
}

// link returns the address of the page with another offset, order or refresh.
func (v view) link(order string, offset int, refresh bool) templ.SafeURL {
	values := url.Values{}
	set := func(name, value string, given bool) {
		if given {
			values.Set(name, value)
		}
	}
	set("q", v.Filter, v.Filter != "")
	set("order", order, order != OrderName)
	set("offset", strconv.Itoa(offset), offset > 0)
	set("limit", strconv.Itoa(v.Limit), v.Limit != DefaultLimit)
	set("refresh", "on", refresh)
	return templ.SafeURL("?" + values.Encode())
}

// json returns the address of the same report as JSON.
func (v view) json() templ.SafeURL {
	return "status.json" + v.link(v.Order, v.Offset, false)
}

func (v view) previous() templ.SafeURL {
	return v.link(v.Order, max(v.Offset-v.Limit, 0), v.refresh)
}

func (v view) next() templ.SafeURL { return v.link(v.Order, v.Offset+v.Limit, v.refresh) }

// range says which rows the page has.
func (v view) shown() string {
	text := several(v.Matched, "port")
	if len(v.Rows) > 0 && len(v.Rows) < v.Matched {
		text = fmt.Sprintf("%s–%s of %s", count(v.Offset+1), count(v.Offset+len(v.Rows)), text)
	}
	if v.Matched != v.Total {
		text += fmt.Sprintf(" that match, %s in all", count(v.Total))
	}
	return text
}

// expanded reports whether to show the endpoints of all rows: there is room for those of a few.
func (v view) expanded() bool { return len(v.Rows) <= 3 }

// ask returns the address of the page that explains where a client of a row gets to.
func ask(target, from string) templ.SafeURL {
	return templ.SafeURL("status/explain?" + url.Values{"target": {target}, "from": {from}}.Encode())
}

// ago says how long before the report something was.
func (v view) ago(t time.Time) string { return span(v.At.Sub(t)) + " ago" }

// clock writes the time of something, and the day unless that was today.
func (v view) clock(t time.Time) string {
	t = t.UTC()
	if now := v.At.UTC(); t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05 UTC")
	}
	return t.Format("2006-01-02 15:04:05 UTC")
}

// span writes a duration in its largest unit, and in two if that is small: 4 s, 1 h 12 min, 3 d 4 h.
func span(d time.Duration) string {
	d = max(d, 0)
	day := 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < day:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/day, d%day/time.Hour)
}

// seconds writes a time that was measured with two digits: 0.08 ms, 2.8 ms, 240 ms, 1.4 s.
func seconds(s float64) string {
	n, unit := s, " s"
	if s < 1 {
		n, unit = s*1000, " ms"
	}
	digits := 0
	switch {
	case n < 1:
		digits = 2
	case n < 10:
		digits = 1
	}
	return strconv.FormatFloat(n, 'f', digits, 64) + unit
}

// latency writes quantiles.
func latency(l Latency) string {
	if l.Samples == 0 {
		return "–"
	}
	p50, p99 := seconds(l.P50), seconds(l.P99)
	if of, ok := strings.CutSuffix(p50, " ms"); ok && strings.HasSuffix(p99, " ms") {
		p50 = of
	}
	return p50 + " / " + p99
}

// of says how many times the quantiles are made of.
func (l Latency) of(what string) string {
	if l.Samples == 0 {
		return "no " + what + " was timed yet"
	}
	return "p50 / p99, " + several(l.Samples, what)
}

// count writes an integer with commas.
func count[T int | uint64](n T) string {
	text := strconv.FormatInt(int64(n), 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// several writes how many there are of something: 1 sync, 2 syncs.
func several(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return count(n) + " " + what
}

// maybe writes a number that may not be known.
func maybe[T int | uint64](n *T) string {
	if n == nil {
		return "–"
	}
	return count(*n)
}

// rate writes connections per second.
func rate(perSecond *float64) string {
	switch {
	case perSecond == nil:
		return "–"
	case *perSecond == 0:
		return "0/s"
	case *perSecond < 0.1:
		return "<0.1/s"
	case *perSecond < 100:
		return strconv.FormatFloat(*perSecond, 'f', 1, 64) + "/s"
	}
	return count(int(*perSecond)) + "/s"
}

func percent(share *float64) string {
	if share == nil {
		return "–"
	}
	return strconv.FormatFloat(*share*100, 'f', 0, 64) + "%"
}

// port is how people call the port of a row.
func (r Row) port() string {
	if r.Name == "" {
		return fmt.Sprintf("%d/%s", r.Port, r.Protocol)
	}
	return fmt.Sprintf("%s %d/%s", r.Name, r.Port, r.Protocol)
}

// endpointsText says how many endpoints a row has in words.
func (r Row) endpointsText() string {
	switch {
	case r.All == 0:
		return "none"
	case r.Ready == r.All && r.LeftOut == 0:
		return count(r.All) + " ready"
	}
	text := fmt.Sprintf("%s of %s ready", count(r.Ready), count(r.All))
	if r.Serving > r.Ready {
		text += fmt.Sprintf(", %s serving", count(r.Serving))
	}
	if r.LeftOut > 0 && r.LeftOut != r.All-r.Ready {
		text += fmt.Sprintf(", %s left out", count(r.LeftOut))
	}
	return text
}

// state says in words what an endpoint is.
func (e Endpoint) state() string {
	switch {
	case e.LeftOut != "":
		return "left out: " + e.LeftOut
	case e.Ready:
		return "ready"
	case e.Serving:
		return "serving, terminates"
	}
	return "not ready"
}

// part is a part of a bar, in percent of its width.
type part struct {
	class    string
	at, wide float64
}

// parts returns the parts of a bar with these weights.
func parts(classes []string, weights ...float64) (list []part) {
	total, at := 0.0, 0.0
	for _, w := range weights {
		total += w
	}
	for i, w := range weights {
		if w > 0 {
			list = append(list, part{classes[i%len(classes)], 100 * at / total, 100 * w / total})
		}
		at += w
	}
	return list
}

// health returns the bar of the endpoints: those that are used and ready, used and terminating, and left out.
func (r Row) health() []part {
	used := r.All - r.LeftOut
	ready := min(r.Ready, used)
	return parts([]string{"ready", "serving", "out"}, float64(ready), float64(used-ready), float64(r.LeftOut))
}

// shares returns the bar of the connections by endpoint.
func (r Row) shares() []part {
	var weights []float64
	for _, e := range r.Endpoints {
		if e.Share != nil {
			weights = append(weights, *e.Share)
		}
	}
	return parts(shareClasses(), weights...)
}

func shareClasses() []string { return []string{"k0", "k1", "k2", "k3", "k4", "k5"} }

// sparkline returns the points of a line of 100 by 24 through the history.
func sparkline(history []uint32) string {
	most := uint32(1)
	for _, n := range history {
		most = max(most, n)
	}
	var b strings.Builder
	for i, n := range history {
		x := 100 * float64(i) / float64(max(len(history)-1, 1))
		y := 23 - 21*float64(n)/float64(most)
		fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
	}
	return strings.TrimSpace(b.String())
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) + "%" }

func (v view) title() string {
	if n := len(v.Problems) + v.MoreProblems; n > 0 {
		return fmt.Sprintf("(%d) nftproxy on %s", n, v.Summary.Node)
	}
	return "nftproxy on " + v.Summary.Node
}

func (v view) lastSync() string {
	if v.Summary.LastSync.IsZero() {
		return "none yet"
	}
	return v.ago(v.Summary.LastSync)
}

func (v view) lastSyncNote() string {
	switch {
	case v.Summary.SyncError != "":
		return "a later one failed"
	case v.Summary.LastSync.IsZero():
		return "nothing is programmed"
	}
	return "and no change since"
}

// none says why there are no rows.
func (v view) none() string {
	if v.Total == 0 {
		return "There are no Services to program."
	}
	return "No port matches the filter."
}

// unfiltered returns the address of the page without its filter.
func (v view) unfiltered() templ.SafeURL {
	r := *v.Report
	r.Filter = ""
	return view{&r, v.refresh}.link(v.Order, 0, v.refresh)
}

func (e Endpoint) address() string {
	if strings.Contains(e.Address, ":") {
		return fmt.Sprintf("[%s]:%d", e.Address, e.Port)
	}
	return fmt.Sprintf("%s:%d", e.Address, e.Port)
}
