package status

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// hostile is what an attacker may write where an object admits any text.
const hostile = `"><script>alert(1)</script><img src=x onerror=alert(2)>'`

// report returns a report in which all texts are hostile.
func hostileReport(_ context.Context, q Query) *Report {
	n, rate, share, open := uint64(5), 2.5, 0.5, 3
	now := time.Now()
	return &Report{
		At: now, Query: q.Normal(), Total: 300, Matched: 120, MoreProblems: 2, HistoryStep: 30,
		Summary:  Summary{Node: hostile, Version: hostile, Kernel: hostile, SyncError: hostile, LastSync: now},
		Problems: []Problem{{What: hostile, Since: now.Add(-time.Minute), Todo: hostile}},
		Rows: []Row{{
			Namespace: hostile, Service: hostile, Name: hostile, Port: 80, Protocol: hostile, Target: hostile,
			Frontends: []Frontend{{Address: hostile, Kind: hostile, Owner: hostile}},
			Policies:  []string{hostile}, Problems: []string{hostile}, Ready: 1, Serving: 1, All: 2, LeftOut: 1,
			Connections: &n, Rate: &rate, History: []uint32{1, 2, 3}, Open: &open,
			Endpoints: []Endpoint{{Address: hostile, Node: hostile, Connections: &n, Share: &share, Open: &open},
				{Address: hostile, Node: hostile, LeftOut: hostile}},
		}},
	}
}

func hostilePages() *Pages {
	return NewPages(hostileReport, func(_ context.Context, target, _ string) (string, error) {
		if target == "unknown" {
			return "", errors.New(hostile)
		}
		return hostile, nil
	})
}

// get returns the answer to a request, and its body.
func get(p http.Handler, method, target string) (*http.Response, string) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Result(), w.Body.String()
}

// TestPagesEscape has hostile text everywhere: no element of it is one of the page. Elements and attributes
// that run scripts or load something are not on the pages at all.
func TestPagesEscape(t *testing.T) {
	allowed := regexp.MustCompile(`^(/|!DOCTYPE|(html|head|meta|title|link|style|body|header|h1|h2|span|a|main|dl|div|` +
		`dt|dd|small|p|ul|li|form|label|input|select|option|button|nav|details|summary|br|svg|rect|polygon|polyline|` +
		`table|thead|tbody|tr|th|td|footer|pre|code)[ />])`)
	active := regexp.MustCompile(`<[^>"]*("[^"]*"[^>"]*)* (on[a-z]+|style|src|srcset|action)=`)
	addresses := regexp.MustCompile(`(?:href|content)="([^"]*)"`)
	safe := regexp.MustCompile(`^(\?[-+%.=&;\w]*|status\.json\?.*|status/explain\?[-+%.=&;\w]*|\.\./status|data:,|` +
		`width=device-width, initial-scale=1|light dark|5)$`)
	for _, target := range []string{
		"/status", "/status?q=" + "%22%3E%3Cscript%3Ealert(1)%3C/script%3E&refresh=on&offset=50&limit=7&order=rate",
		"/status/explain?target=%3Cscript%3Ex&from=%22%3E%3Cscript%3Ex", "/status/explain?target=unknown",
	} {
		resp, body := get(hostilePages(), "GET", target)
		_, body, _ = strings.Cut(body, "</style>")
		for tag := range strings.SplitSeq(body, "<") {
			if tag != "" && !allowed.MatchString(tag) {
				t.Errorf("%s: the page has <%.40s", target, tag)
			}
		}
		if found := active.FindString(body); found != "" {
			t.Errorf("%s: the page has %q", target, found)
		}
		for _, found := range addresses.FindAllStringSubmatch(body, -1) {
			if !safe.MatchString(found[1]) {
				t.Errorf("%s: the page has the address %q", target, found[1])
			}
		}
		policy := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" ||
			resp.Header.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: headers %v", target, resp.Header)
		}
	}
	resp, body := get(hostilePages(), "GET", "/status.json")
	if strings.Contains(body, "<") || resp.Header.Get("Content-Type") != "application/json" ||
		json.Unmarshal([]byte(body), &Report{}) != nil {
		t.Errorf("JSON: headers %v, %.2000s", resp.Header, body)
	}
}

// TestPagesOnlyRead sends other methods than those that read.
func TestPagesOnlyRead(t *testing.T) {
	for _, path := range []string{"/status", "/status.json", "/status/explain"} {
		for method, code := range map[string]int{"GET": 200, "HEAD": 200, "POST": 405, "PUT": 405, "DELETE": 405} {
			if resp, _ := get(hostilePages(), method, path); resp.StatusCode != code {
				t.Errorf("%s %s: %d, want %d", method, path, resp.StatusCode, code)
			}
		}
	}
	for path, code := range map[string]int{"/status/other": 404, "/status/explain?target=unknown": 400} {
		if resp, _ := get(hostilePages(), "GET", path); resp.StatusCode != code {
			t.Errorf("%s: %d, want %d", path, resp.StatusCode, code)
		}
	}
}

// TestLinksKeep follows the links of a page: all keep the filter, the order and the size of the page.
func TestLinksKeep(t *testing.T) {
	_, body := get(hostilePages(), "GET", "/status?q=web+tcp&order=rate&limit=7&offset=14&refresh=on")
	for _, want := range []string{
		`<meta http-equiv="refresh" content="5">`,
		`<a href="?limit=7&amp;offset=14&amp;order=rate&amp;q=web+tcp">stop</a>`,
		`<a href="?limit=7&amp;offset=7&amp;order=rate&amp;q=web+tcp&amp;refresh=on" rel="prev">`,
		`<a href="?limit=7&amp;offset=21&amp;order=rate&amp;q=web+tcp&amp;refresh=on" rel="next">`,
		`<a href="?limit=7&amp;order=rate&amp;refresh=on">clear</a>`,
		`<a href="status.json?limit=7&amp;offset=14&amp;order=rate&amp;q=web+tcp">`,
		`name="q" value="web tcp"`, `<input type="hidden" name="refresh" value="on">`,
		`<input type="hidden" name="limit" value="7">`, `<option value="rate" selected>`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if _, body = get(hostilePages(), "GET", "/status?q=web"); strings.Contains(body, "http-equiv") ||
		!strings.Contains(body, `<a href="?q=web&amp;refresh=on">`) {
		t.Error("a page that does not refresh itself does, or has no link to one that does")
	}
}

// TestCalm has a node without problems, and one that is busy.
func TestCalm(t *testing.T) {
	r := &Report{At: time.Now(), Query: Query{}.Normal()}
	pages := NewPages(func(context.Context, Query) *Report { return r }, nil)
	_, body := get(pages, "GET", "/status")
	if !strings.Contains(body, "No problems") || strings.Contains(body, `class="problems"`) {
		t.Errorf("a node that is well: %s", body)
	}
	r.Busy = "a sync has been running for 3s"
	if _, body = get(pages, "GET", "/status"); !strings.Contains(body, "a sync has been running for 3s") {
		t.Errorf("a node that is busy: %s", body)
	}
}

// TestRequestsTakeTurns has two requests at the same time: the second one waits, until its client gives up.
func TestRequestsTakeTurns(t *testing.T) {
	began, end := make(chan struct{}), make(chan struct{})
	pages := NewPages(func(context.Context, Query) *Report {
		began <- struct{}{}
		<-end
		return &Report{}
	}, nil)
	answered := make(chan int)
	go func() {
		resp, _ := get(pages, "GET", "/status")
		answered <- resp.StatusCode
	}()
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	pages.ServeHTTP(w, httptest.NewRequest("GET", "/status", nil).WithContext(ctx))
	if w.Body.Len() > 0 {
		t.Errorf("one more request got %d bytes", w.Body.Len())
	}
	close(end)
	if code := <-answered; code != http.StatusOK {
		t.Errorf("status %d", code)
	}
}
