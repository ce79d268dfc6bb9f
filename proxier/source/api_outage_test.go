package source

import (
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestAPIServerHangs stops the API server in its tracks: it neither sends nor answers, and keeps its
// connections. The source notices this by itself, says for how long it has not heard the server, and says
// once that it is over.
func TestAPIServerHangs(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		time.Sleep(30 * time.Minute)
		c.server.hang()
		time.Sleep(4 * time.Minute)
		reports, rest := errorsOf(c.take())
		// A watch that ends regularly in the first three minutes makes it notice earlier.
		if len(reports) != 1 || !strings.Contains(reports[0], ": no answer within 30s; not heard for ") ||
			len(rest) > 0 {
			t.Errorf("in the first minutes: %q, %q", reports, rest)
		}
		time.Sleep(20 * time.Minute)
		c.expect()
		c.server.resume()
		c.server.put(apiService("web", "2"))
		time.Sleep(50 * time.Second) // a request and a pause
		reports, rest = errorsOf(c.take())
		compare(t, []string{"+ Service shop/web 2"}, rest)
		if len(reports) != 1 || !strings.HasPrefix(reports[0], "~ the API server answers again after 2") {
			t.Errorf("at the end: %q", reports)
		}
	})
}

// TestAPIServerHangsAtStart shows that the source does not wait without end for the first objects.
func TestAPIServerHangsAtStart(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.noCIDRs = true
		c.fill()
		c.server.hang()
		c.begin()
		time.Sleep(14 * time.Second)
		c.expect()
		time.Sleep(time.Second)
		c.expect("! start: no services, no endpointslices received within 15s")
		time.Sleep(20 * time.Second)
		reports, _ := errorsOf(c.take())
		if len(reports) != 1 || !strings.Contains(reports[0], "no answer within 30s; not heard for 30s") {
			t.Errorf("%q", reports)
		}
		c.server.resume()
		time.Sleep(time.Minute)
		reports, rest := errorsOf(c.take())
		compare(t, append(filled()[:3], "synced"), rest)
		if len(reports) != 2 {
			t.Errorf("reports of the end: %q", reports)
		}
	})
}

// TestAPIPacketsVanish starts while no packet reaches the API server. client-go turns the timeout of a watch
// into a watch without events.
func TestAPIPacketsVanish(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.fill()
		c.server.losePackets(true)
		c.begin()
		time.Sleep(150 * time.Second)
		reports, rest := errorsOf(c.take())
		if len(rest) > 0 {
			t.Errorf("received %q", rest)
		}
		if len(reports) != 2 || !strings.HasSuffix(reports[0], "tcp: i/o timeout; not heard for 10s") ||
			reports[1] != "! start: no services, no endpointslices received within 15s" {
			t.Errorf("reports %q", reports)
		}
		time.Sleep(10 * time.Minute)
		c.expect()
		c.server.losePackets(false)
		time.Sleep(time.Minute)
		reports, rest = errorsOf(c.take())
		compare(t, append(filled(), "synced"), rest)
		slices.Sort(reports)
		if len(reports) != 2 ||
			!strings.HasPrefix(reports[0], "~ services, endpointslices received after 1") ||
			!strings.HasPrefix(reports[1], "~ the API server answers again after 1") {
			t.Errorf("reports of the end: %q", reports)
		}
	})
}

// TestAPIServerShutsDown shows that an API server that asks to come again is reported once, and that its
// watches resume: they do not become lists.
func TestAPIServerShutsDown(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		time.Sleep(time.Minute) // the reflector lists after a watch of less than a second
		lists := c.server.count("list services all")
		c.server.refuseAll(apierrors.NewServiceUnavailable("apiserver is shutting down"))
		time.Sleep(2 * time.Minute)
		reports, _ := errorsOf(c.take())
		if len(reports) != 1 || !strings.Contains(reports[0], ": apiserver is shutting down; not heard") {
			t.Errorf("reports %q", reports)
		}
		c.server.refuseAll(nil)
		c.server.put(apiService("web", "2"))
		time.Sleep(30 * time.Second)
		reports, rest := errorsOf(c.take())
		compare(t, []string{"+ Service shop/web 2"}, rest)
		if len(reports) != 1 || !strings.HasPrefix(reports[0], "~ the API server answers again after ") {
			t.Errorf("reports of the end: %q", reports)
		}
		if n := c.server.count("list services all") - lists; n > 0 {
			t.Errorf("%d lists", n)
		}
	})
}

// TestAPIQuietWatch shows that a watch without bookmarks, which an API server need not send, is no failure.
func TestAPIQuietWatch(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.noBookmarks = true
		c.started()
		time.Sleep(time.Hour)
		c.expect()
		c.server.put(apiService("web", "2"))
		c.expect("+ Service shop/web 2")
	})
}
