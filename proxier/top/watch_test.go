package top

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/proxier/status"
)

// console is a terminal as kubectl exec makes one, with what the program has written to it.
type console struct {
	keyboard, tty *os.File
	fd            int // of the keyboard
	mu            sync.Mutex
	text          bytes.Buffer
}

func newConsole(t *testing.T, width, height uint16) *console {
	t.Helper()
	opened, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	fd, err := unix.Dup(int(opened.Fd()))
	if err == nil {
		err = unix.SetNonblock(fd, true) // so that Close ends a read
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &console{keyboard: os.NewFile(uintptr(fd), "keyboard"), fd: fd, tty: tty}
	c.resize(t, width, height)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for buf := make([]byte, 4096); ; {
			n, err := c.keyboard.Read(buf)
			if err != nil {
				return
			}
			c.mu.Lock()
			c.text.Write(buf[:n])
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() { c.keyboard.Close(); <-done; tty.Close() })
	return c
}

func (c *console) resize(t *testing.T, width, height uint16) {
	t.Helper()
	err := unix.IoctlSetWinsize(c.fd, unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *console) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := c.keyboard.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// shown returns everything that was written since the last call.
func (c *console) shown() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.text.Reset()
	return c.text.String()
}

// await waits until a picture has all texts and returns it.
func (c *console) await(t *testing.T, texts ...string) string {
	t.Helper()
	all := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		all += c.shown()
		for _, picture := range strings.Split(all, begin) {
			if strings.HasSuffix(picture, end) && hasAll(picture, texts) {
				return picture
			}
		}
	}
	t.Fatalf("after 10 s no picture has %q: %q", texts, all)
	return ""
}

func hasAll(picture string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(picture, text) {
			return false
		}
	}
	return true
}

// modes returns the modes of the terminal, as stty shows them.
func (c *console) modes(t *testing.T) unix.Termios {
	t.Helper()
	modes, err := unix.IoctlGetTermios(int(c.tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *modes
}

// watching runs Watch on a console until the test ends, and returns its result.
func (c *console) watching(t *testing.T, ask Asker, o Options) (result chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	result = make(chan error, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		result <- Watch(ctx, c.tty, c.tty, ask, o)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return result
}

// daemon answers like one, with the rows of sample that have the filter in their names.
type daemon struct {
	mu      sync.Mutex
	queries []status.Query
	err     error
}

func (d *daemon) ask(_ context.Context, q status.Query) (*status.Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queries = append(d.queries, q)
	if d.err != nil {
		return nil, d.err
	}
	r := sample()
	r.Query, r.Rows, r.Matched = q, nil, 0
	for _, row := range sample().Rows {
		if strings.Contains(row.Service, q.Filter) {
			r.Rows = append(r.Rows, row)
			r.Matched++
		}
	}
	return r, nil
}

// TestRowsGo scrolls to the end while rows go away: the screen shows the last of those that are left.
func TestRowsGo(t *testing.T) {
	c := newConsole(t, 80, 24)
	var mu sync.Mutex
	rows := 3
	ask := func(_ context.Context, q status.Query) (*status.Report, error) {
		mu.Lock()
		defer mu.Unlock()
		r := sample()
		r.Query, r.Matched, r.Rows = q, rows, r.Rows[min(q.Offset, rows):rows]
		return r, nil
	}
	c.watching(t, ask, Options{Interval: time.Millisecond})
	c.await(t, "default/web")
	c.press(t, "jj")
	c.await(t, "from number 3", "default/empty")
	mu.Lock()
	rows = 1
	mu.Unlock()
	c.await(t, "default/web")
}

func (d *daemon) last() status.Query {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queries[len(d.queries)-1]
}

func (d *daemon) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func TestWatch(t *testing.T) {
	c, d := newConsole(t, 90, 14), &daemon{}
	before := c.modes(t)
	result := c.watching(t, d.ask, Options{Order: status.OrderRate, Interval: time.Millisecond})
	c.await(t, "default/web", "dns", "empty")
	if c.modes(t) == before {
		t.Error("the terminal still shows what is typed")
	}
	c.press(t, "/web")
	if picture := c.await(t, "1 of 3 ports", "default/web", "filter: web_"); strings.Contains(picture, "dns") {
		t.Errorf("the filter does not narrow: %q", picture)
	}
	c.press(t, "\rs")
	c.await(t, "by open connections", "OPEN*")
	if q := d.last(); q.Filter != "web" || q.Order != status.OrderOpen || q.Limit != 14 {
		t.Errorf("asked for %+v", q)
	}
	c.press(t, "e")
	c.await(t, "10.244.2.11:8080")
	c.press(t, "?")
	c.await(t, "this help, or the table")
	c.press(t, "\x1b")
	c.await(t, "SERVICE")

	d.fail(errors.New("it has gone"))
	c.await(t, "no answer since", "it has gone", "default/web")
	d.fail(nil)

	c.resize(t, 60, 10)
	if err := unix.Kill(unix.Getpid(), unix.SIGWINCH); err != nil { // the kernel tells a foreground process only
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); d.last().Limit != 10; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s the query is %+v", d.last())
		}
	}

	// A line is cleared before it is written: when it fills the width, the cursor stays on its last character.
	for line := range strings.SplitSeq(c.await(t, "q quit"), "\r\n") {
		if strings.LastIndex(line, clearLine) > 0 {
			t.Errorf("%q: a part is cleared", line)
		}
	}
	c.shown()
	c.press(t, "q")
	if err := <-result; err != nil {
		t.Errorf("q ends with %v", err)
	}
	if after := c.modes(t); after != before {
		t.Errorf("modes of the terminal %+v, were %+v", after, before)
	}
	c.awaitEnd(t)
}

// awaitEnd waits until the other screen is left.
func (c *console) awaitEnd(t *testing.T) {
	t.Helper()
	all := ""
	for deadline := time.Now().Add(10 * time.Second); !strings.HasSuffix(all, leaveScreen); {
		if all += c.shown(); time.Now().After(deadline) {
			t.Fatalf("after 10 s the screen is not left: %q", all)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestWatchEnds ends it in each way but q.
func TestWatchEnds(t *testing.T) {
	t.Run("Ctrl-C", func(t *testing.T) {
		c := newConsole(t, 80, 24)
		before := c.modes(t)
		result := c.watching(t, (&daemon{}).ask, Options{Interval: time.Hour})
		c.await(t, "SERVICE")
		c.press(t, "\x03")
		if err := <-result; err != nil || c.modes(t) != before {
			t.Errorf("error %v, modes %+v, were %+v", err, c.modes(t), before)
		}
		c.awaitEnd(t)
	})
	t.Run("context", func(t *testing.T) {
		c := newConsole(t, 80, 24)
		before := c.modes(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Watch(ctx, c.tty, c.tty, (&daemon{}).ask, Options{Interval: time.Hour}) }()
		c.await(t, "SERVICE")
		cancel()
		if err := <-done; err != nil || c.modes(t) != before {
			t.Errorf("error %v, modes %+v, were %+v", err, c.modes(t), before)
		}
		c.awaitEnd(t)
	})
	t.Run("hang up", func(t *testing.T) {
		c := newConsole(t, 80, 24)
		result := c.watching(t, (&daemon{}).ask, Options{Interval: time.Hour})
		c.await(t, "SERVICE")
		c.keyboard.Close()
		<-result
	})
	t.Run("no daemon", func(t *testing.T) {
		c := newConsole(t, 80, 24)
		gone := errors.New("no daemon")
		err := Watch(t.Context(), c.tty, c.tty, (&daemon{err: gone}).ask, Options{})
		if !errors.Is(err, gone) || c.shown() != "" {
			t.Errorf("error %v, want that of the daemon, and nothing on the screen", err)
		}
	})
}

// TestWatchWithoutSize uses a terminal that does not know its size.
func TestWatchWithoutSize(t *testing.T) {
	c, d := newConsole(t, 0, 0), &daemon{}
	c.watching(t, d.ask, Options{Interval: time.Hour})
	picture := c.await(t, "default/web")
	if n := strings.Count(picture, "\r\n") + 1; n != defaultHeight {
		t.Errorf("%d lines, want %d", n, defaultHeight)
	}
}

// TestSlowDaemon asks while an answer takes its time: the answer to the newest question counts.
func TestSlowDaemon(t *testing.T) {
	c, d := newConsole(t, 80, 24), &daemon{}
	ask := func(ctx context.Context, q status.Query) (*status.Report, error) {
		if q.Filter == "w" {
			<-ctx.Done()
			return nil, fmt.Errorf("given up: %w", ctx.Err())
		}
		return d.ask(ctx, q)
	}
	c.watching(t, ask, Options{Interval: time.Hour})
	c.await(t, "SERVICE")
	c.press(t, "/w")
	c.await(t, "filter: w_")
	c.press(t, "eb")
	if picture := c.await(t, "filter: web_", "1 of 3"); strings.Contains(picture, "given up") {
		t.Errorf("%q", picture)
	}
}
