package top

import (
	"context"
	"os"
	"time"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// Asker answers a query: [Ask].
type Asker func(context.Context, status.Query) (*status.Report, error)

// Options of a table.
type Options struct {
	Filter   string
	Order    string // of status.Query
	Interval time.Duration
	Colour   bool
}

// pauseShare is how many times as long as an answer took the next one is not asked for, at least: people who
// look should not keep a busy node busy.
const pauseShare = 10

// Watch shows the table in a terminal until q or Ctrl-C is typed, ctx ends or the terminal is gone. It
// returns an error if the daemon does not answer the first time; later the screen says so.
func Watch(ctx context.Context, in, out *os.File, ask Asker, o Options) (err error) {
	w := &watch{ask: ask, interval: o.Interval, answers: make(chan answer),
		view: view{query: status.Query{Filter: o.Filter, Order: o.Order}, colour: o.Colour}}
	w.query.Limit = defaultHeight
	if w.report, err = ask(ctx, w.query); err != nil {
		return err
	}
	if w.screen, err = openScreen(in, out); err != nil {
		return err
	}
	defer func() {
		w.cancel()
		if closed := w.screen.close(); err == nil {
			err = closed
		}
	}()
	w.resize()
	w.request(ctx)
	return w.run(ctx)
}

// watch is a table on a screen.
type watch struct {
	view
	screen   *screen
	ask      Asker
	interval time.Duration
	cancel   context.CancelFunc // of the request that is under way, or was the last
	asked    int                // number of the last request
	answers  chan answer
	next     <-chan time.Time // when to ask again
}

// answer is the answer to a request.
type answer struct {
	number int
	report *status.Report
	err    error
	took   time.Duration
}

func (w *watch) run(ctx context.Context) error {
	for {
		if err := w.screen.draw(w.lines()); err != nil {
			return nil // the terminal is gone
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.screen.resized:
			w.resize()
			w.request(ctx)
		case <-w.next:
			w.request(ctx)
		case a := <-w.answers:
			w.take(a)
		case typed, open := <-w.screen.typed:
			if !open {
				return nil
			}
			before := w.query
			for _, k := range w.screen.keys(typed) {
				if w.press(k) {
					return nil
				}
			}
			if w.query != before {
				w.request(ctx)
			}
		}
	}
}

// resize fits the table to the terminal.
func (w *watch) resize() {
	w.width, w.height = w.screen.size()
	w.query.Limit = min(w.height, status.MaxLimit)
}

// request asks for what the screen shows, and gives up what it asked for before.
func (w *watch) request(ctx context.Context) {
	if w.cancel != nil {
		w.cancel()
	}
	asking, cancel := context.WithCancel(ctx)
	w.cancel, w.next = cancel, nil
	w.asked++
	number, q := w.asked, w.query
	go func() {
		begin := time.Now()
		report, err := w.ask(asking, q)
		select {
		case w.answers <- answer{number, report, err, time.Since(begin)}:
		case <-asking.Done():
		}
	}()
}

// take shows an answer, unless another one is awaited.
func (w *watch) take(a answer) {
	if a.number != w.asked {
		return
	}
	w.next = time.After(max(w.interval, pauseShare*a.took))
	if w.err = a.err; a.err != nil {
		return
	}
	w.report = a.report
	if at := w.query.Offset; at > 0 && at >= w.report.Matched { // rows have gone
		w.scroll(at)
		w.next = time.After(0)
	}
}
