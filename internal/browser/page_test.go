package browser

import (
	"bytes"
	"fmt"
	"image/png"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// TestPage opens the page of a node whose Services have connections.
func TestPage(t *testing.T) {
	if !lab.Alone(t) {
		return
	}
	l, manifests := startNode(t)
	connect(t, l, manifests, *load)
	c := startChromium(t)
	c.looks()
	c.filters()
	c.refreshes()
	c.explains()
	c.hostile(manifests)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.messages) > 0 || len(c.requests) > 0 || c.seen == 0 {
		t.Errorf("messages %q; %d requests, to elsewhere %q", c.messages, c.seen, c.requests)
	}
}

// looks opens the page in windows of several widths, in light and in dark: each has all rows, none is wider than
// the window, and text differs enough from what is behind it.
func (c *chromium) looks() {
	c.t.Helper()
	background := map[string]string{}
	for _, window := range []struct {
		name          string
		width, height int64
		scheme        string
	}{
		{"desktop-light", 1400, 900, "light"}, {"desktop-dark", 1400, 900, "dark"},
		{"tablet-light", 820, 1100, "light"}, {"phone-light", 390, 844, "light"}, {"phone-dark", 390, 844, "dark"},
		{"narrow", 320, 640, "light"},
	} {
		c.look(window.width, window.height, window.scheme)
		c.run(chromedp.Navigate(statusURL), chromedp.WaitVisible(chromedp.CSS("details")))
		if rows := value[int](c, `document.querySelectorAll("details").length`); rows != 9 {
			c.t.Errorf("%s: %d rows, want 9", window.name, rows)
		}
		c.narrow(window.name, window.width)
		background[window.scheme] = value[string](c, `getComputedStyle(document.body).backgroundColor`)
		for element, contrast := range value[map[string]float64](c, contrasts) {
			if contrast < 4.5 { // of WCAG 2.2, success criterion 1.4.3
				c.t.Errorf("%s: the contrast of %s is %.1f, want at least 4.5", window.name, element, contrast)
			}
		}
		c.shot(window.name)
		value[bool](c, `document.querySelectorAll("details").forEach(d => d.open = true) ?? true`)
		c.narrow(window.name+" with open rows", window.width)
		c.shot(window.name + "-open")
	}
	if background["light"] == background["dark"] {
		c.t.Errorf("the background is %s in light and in dark", background["light"])
	}
	c.look(1400, 1000, "light")
}

// contrasts is the contrast of each text to the background behind it, by class or element.
const contrasts = `(() => {
	const parse = c => (c.match(/[\d.]+/g) || [0, 0, 0, 0]).map(Number);
	const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length < 4 || c[3] == 1) return c;
		}
		return [255, 255, 255];
	};
	const found = {};
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || !e.checkVisibility()) continue;
		const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((a, b) => b - a);
		const name = e.className || e.tagName;
		found[name] = Math.min(found[name] ?? 99, (a + 0.05) / (b + 0.05));
	}
	return found;
})()`

// narrow checks that the page is not wider than the window.
func (c *chromium) narrow(name string, width int64) {
	c.t.Helper()
	if wide := value[int64](c, `document.documentElement.scrollWidth`); wide > width {
		widest := value[string](c, fmt.Sprintf(`[...document.querySelectorAll("body *")].filter(
			e => e.getBoundingClientRect().right > %d).map(e => e.tagName + "." + e.className).join(" ")`, width))
		c.t.Errorf("%s: the page is %d wide: %s", name, wide, widest)
	}
}

// filters types into the filter and follows links, without scripts.
func (c *chromium) filters() {
	c.t.Helper()
	c.run(chromedp.Navigate(statusURL),
		chromedp.SendKeys(chromedp.CSS(`input[name=q]`), "Checkout 443\r"), chromedp.WaitVisible(chromedp.CSS(`a[href="?"]`)))
	if names := c.names(); !slices.Equal(names, []string{"shop/checkout grpc 443/tcp"}) {
		c.t.Errorf("the filter leaves %q", names)
	}
	if !value[bool](c, `document.querySelector("details").open`) {
		c.t.Error("the endpoints of the only row are not shown")
	}
	text := value[string](c, `document.querySelector("details").innerText`)
	for _, want := range []string{"10.96.0.23:443", "affinity 3h", "2 of 3 ready", "10.244.1.11:8083", "10.244.2.12:8083",
		"left out: not ready"} {
		if !strings.Contains(text, want) {
			c.t.Errorf("the row lacks %q: %s", want, text)
		}
	}
	c.shot("filter")
	c.run(chromedp.Click(chromedp.CSS(`a[href="?"]`)), chromedp.WaitNotPresent(chromedp.CSS(`a[href="?"]`)))
	if names := c.names(); len(names) != 9 {
		c.t.Errorf("without the filter there are %q", names)
	}
	c.run(chromedp.Navigate(statusURL+"?limit=4&order=connections"), chromedp.Click(chromedp.CSS(`a[rel=next]`)),
		chromedp.WaitVisible(chromedp.CSS(`a[rel=prev]`)))
	if names := c.names(); len(names) != 4 {
		c.t.Errorf("the second page of 4 has %q", names)
	}
}

// names returns what the rows are called.
func (c *chromium) names() []string {
	c.t.Helper()
	return value[[]string](c, `[...document.querySelectorAll(".name")].map(e => e.innerText)`)
}

// refreshes turns the refresh on: the page loads itself again, with its filter, until it is turned off.
func (c *chromium) refreshes() {
	c.t.Helper()
	made := `document.querySelector("footer")?.innerText ?? ""` // a page that is being loaded has none yet
	c.run(chromedp.Navigate(statusURL+"?q=cart"), chromedp.Click(chromedp.CSS(`a[href="?q=cart&refresh=on"]`)),
		chromedp.WaitVisible(chromedp.CSS(`a[href="?q=cart"]`)))
	first := value[string](c, made)
	deadline := time.Now().Add(20 * time.Second)
	for now := ""; now == "" || now == first; now = value[string](c, made) {
		if time.Now().After(deadline) {
			c.t.Fatal("the page has not loaded itself again within 20 s")
		}
		time.Sleep(200 * time.Millisecond)
	}
	at, err := url.Parse(value[string](c, `location.href`))
	if err != nil || at.RawQuery != "q=cart&refresh=on" || len(c.names()) != 1 {
		c.t.Errorf("after it has loaded itself again the page is %v and has %q", at, c.names())
	}
	c.run(chromedp.Click(chromedp.CSS(`a[href="?q=cart"]`)), chromedp.WaitVisible(chromedp.CSS(`a[href="?q=cart&refresh=on"]`)))
}

// explains follows the link of a row to its explanation, and asks for another client.
func (c *chromium) explains() {
	c.t.Helper()
	c.run(chromedp.Navigate(statusURL+"?q=gateway"), chromedp.Click(chromedp.CSS(`a[href*="from=outside"]`)),
		chromedp.WaitVisible(chromedp.CSS("pre")))
	text := value[string](c, `document.querySelector("pre").innerText`)
	if !strings.Contains(text, "Service ingress/gateway") || !strings.Contains(text, "verdict") {
		c.t.Errorf("the explanation is %q", text)
	}
	c.shot("explain")
	c.run(chromedp.SetValue(chromedp.CSS(`input[name=from]`), "192.0.2.100"), chromedp.Click(chromedp.CSS("button")),
		chromedp.WaitVisible(chromedp.CSS(`input[value="192.0.2.100"]`)))
	if text := value[string](c, `document.querySelector("pre").innerText`); !strings.Contains(text, "192.0.2.100") {
		c.t.Errorf("the explanation for another client is %q", text)
	}
}

// hostile writes elements and scripts where a Service admits any text: the page shows them as text.
func (c *chromium) hostile(manifests string) {
	c.t.Helper()
	const script = `<img src=http://192.0.2.66/x onerror=alert(1)><script>document.title=1</script>`
	service := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: bad, namespace: shop}\nspec:\n"+
		"  clusterIP: 10.96.0.99\n  externalIPs: ['%s']\n  ports: [{port: 80}]\n", script)
	must(c.t, os.WriteFile(filepath.Join(manifests, "bad.yaml"), []byte(service), 0o644))
	deadline := time.Now().Add(10 * time.Second)
	for {
		c.run(chromedp.Navigate(statusURL + "?q=" + url.QueryEscape(`"><script>document.title=2</script>`)))
		if strings.Contains(value[string](c, `document.body.innerText`), script) {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatal("the problem of the Service is not on the page")
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.shot("problems")
	if title := value[string](c, `document.title`); title != "(1) nftproxy on node-a" {
		c.t.Errorf("the title is %q", title)
	}
	if n := value[int](c, `document.querySelectorAll("img, script").length`); n > 0 {
		c.t.Errorf("the page has %d images and scripts", n)
	}
}

// shot takes a picture of the window. Pictures are for others: they do not name the kernel of this machine.
func (c *chromium) shot(name string) {
	c.t.Helper()
	value[string](c, `(document.querySelector("header .dim") ?? {}).textContent = "nftproxy v0.1.0 · Linux 6.18.9"`)
	image, err := chromedp.Run(c, chromedp.CaptureScreenshot())
	must(c.t, err)
	if _, err := png.Decode(bytes.NewReader(image)); err != nil {
		c.t.Errorf("picture %s: %v", name, err)
	}
	if *pictures != "" {
		must(c.t, os.WriteFile(filepath.Join(*pictures, name+".png"), image, 0o644))
	}
}
