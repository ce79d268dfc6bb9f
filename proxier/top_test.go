package proxier

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/status"
	"github.com/nftproxy/nftproxy/proxier/top"
)

// TestTop looks at a running daemon through a terminal while clients connect: the Service has its open
// connections and its rate, a filter narrows the table, and q gives the terminal back. It asks through the
// socket of the daemon.
func TestTop(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	serve(t, l, podC, podC6)
	dir.write(t, "endpoints.yaml", registryEndpoints(podA, podC, podA6, podC6))
	dir.write(t, "other.yaml", strings.NewReplacer("name: web", "name: other", "10.96.0.10", "10.96.0.11",
		"fd00:10:96::10", "fd00:10:96::11", "30080", "30081").Replace(registryManifest))
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	awaitStatus(t, "", func(r *status.Report) bool { return len(r.Rows) == 4 })
	defer hold(t, l, "10.96.0.10:80", 20)()

	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	before := terminalModes(t, tty)
	var screen pictures
	go screen.read(keyboard)
	done := make(chan error, 1)
	go func() {
		done <- top.Watch(t.Context(), tty, tty, top.Ask, top.Options{Order: status.OrderRate,
			Interval: 100 * time.Millisecond})
	}()
	// The columns are port, endpoints that are ready, new connections per second, open connections.
	row := screen.await(t, "default/web", func(f []string) bool {
		return f[1] == "tcp" && f[3] == "4/4" && f[4] != "0" && f[4] != "-" && f[5] == "20"
	})
	if !strings.Contains(row, "█") || !strings.Contains(row, "▒") {
		t.Errorf("%q: no bar of two endpoints", row)
	}
	screen.await(t, "default/other", func([]string) bool { return true })
	if _, err := keyboard.WriteString("/web\r"); err != nil {
		t.Fatal(err)
	}
	screen.await(t, "2 of 4 ports", func([]string) bool { return true })
	if now := screen.now(); strings.Contains(now, "default/other") || !strings.Contains(now, "default/web") {
		t.Errorf("the filter does not narrow: %q", now)
	}
	if _, err := keyboard.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if after := terminalModes(t, tty); after != before {
		t.Errorf("modes of the terminal %+v, were %+v", after, before)
	}
}

// TestTopOnce writes the table of a running daemon once.
func TestTopOnce(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, dir := newRegistry(t)
	startDaemon(t, dir.dir)
	eventuallyHealthy(t)
	defer hold(t, l, "10.96.0.10:80", 3)()
	q := status.Query{Filter: "tcp", Order: status.OrderOpen, Limit: status.MaxLimit}
	report, err := top.Ask(t.Context(), q)
	if err != nil || len(report.Rows) != 1 || *report.Rows[0].Open != 3 || report.Query != q {
		t.Fatalf("error %v, report %+v", err, report)
	}
	var text, asJSON bytes.Buffer
	if err := top.WriteText(&text, report); err != nil || strings.Count(text.String(), "\n") != 2 {
		t.Errorf("error %v, text %q, want two lines", err, &text)
	}
	var again status.Report
	if err := top.WriteJSON(&asJSON, report); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(asJSON.Bytes(), &again); err != nil || *again.Rows[0].Open != 3 {
		t.Errorf("error %v, JSON %s", err, &asJSON)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := top.Ask(ctx, q); err == nil {
		t.Error("Ask does not end with its context")
	}
}

func terminalModes(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	modes, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *modes
}

// pictures is what a terminal shows, one picture after the other.
type pictures struct {
	mu   sync.Mutex
	text string
}

func (p *pictures) read(from *os.File) {
	for buf := make([]byte, 4096); ; {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.text += string(buf[:n])
		p.mu.Unlock()
	}
}

// now returns the last picture that is complete: between the sequences that go to the first line and that show
// the update.
func (p *pictures) now() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.text[:max(0, strings.LastIndex(p.text, "\x1b[?2026l"))]
	text = text[strings.LastIndex(text, "\x1b[H")+1:]
	return strings.ReplaceAll(text, "\x1b[K", "")
}

// await waits for a line that begins with a text and has the right fields, and returns it.
func (p *pictures) await(t *testing.T, begin string, right func(fields []string) bool) string {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		for line := range strings.Lines(p.now()) {
			if strings.HasPrefix(line, begin) && right(strings.Fields(line)) {
				return line
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("after 15 s no line %q is right: %q", begin, p.now())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
