package browser

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// chromium is a browser in which the pages run no scripts.
type chromium struct {
	context.Context
	t *testing.T

	mu       sync.Mutex
	messages []string // of the console, and about what the pages were not allowed to do
	seen     int      // requests
	requests []string // those that do not go to the status pages
}

// startChromium starts the browser, which ends with the test.
func startChromium(t *testing.T) *chromium {
	t.Helper()
	c := &chromium{t: t}
	// The sandbox of Chromium needs rights that root in a user namespace does not have.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-component-update", true))
	allocator, end := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(end)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithListener(c.record))
	t.Cleanup(cancel)
	c.Context = ctx
	call(c, log.Enable, cdp.Empty{})
	call(c, network.Enable, network.EnableParams{})
	call(c, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	return c
}

// record keeps what a page must not do.
func (c *chromium) record(event any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		c.messages = append(c.messages, e.Entry.Text)
	case *runtime.EventConsoleAPICalled, *runtime.EventExceptionThrown:
		c.messages = append(c.messages, fmt.Sprintf("%+v", e))
	case *network.EventRequestWillBeSent:
		c.seen++
		if url := e.Request.URL; !strings.HasPrefix(url, statusURL) && !strings.HasPrefix(url, "data:") {
			c.requests = append(c.requests, url)
		}
	}
}

// call calls a command of the browser.
func call[P, R any](c *chromium, command cdp.Command[P, R], parameters P) {
	c.t.Helper()
	if _, err := chromedp.Call(c, command, parameters); err != nil {
		c.t.Fatal(err)
	}
}

// patience is how long an action may take.
const patience = 30 * time.Second

// run does something in the browser.
func (c *chromium) run(actions ...chromedp.Action[chromedp.Void]) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		c.t.Fatal(err)
	}
}

// value evaluates an expression in the page. The browser does so although the page may not run scripts.
func value[T any](c *chromium, expression string) T {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// look sets what the page looks at: the width of the window, and the colours that its user prefers.
func (c *chromium) look(width, height int64, scheme string) {
	c.t.Helper()
	var as []chromedp.EmulateViewportOption
	if width < 600 {
		as = append(as, chromedp.EmulateMobile)
	}
	c.run(chromedp.EmulateViewport(width, height, as...))
	call(c, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
}
