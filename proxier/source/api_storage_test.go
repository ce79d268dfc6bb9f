package source

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAPIStorageRestored restores a snapshot of the storage so quickly that no request fails: a Service of
// the snapshot is back, one that is younger is gone. The source has this within 5 s: the API server refuses
// the version after 3 s, and a pause of up to 1.6 s follows.
func TestAPIStorageRestored(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.put(apiService("deleted", "1"))
		c.fill()
		c.begin()
		c.take()
		before := c.server.snapshot()
		c.server.remove(apiService("deleted", ""))
		c.putAll("2")
		c.server.put(apiService("younger", "1"))
		c.take()
		c.server.restore(before)
		time.Sleep(5 * time.Second)
		reports, rest := errorsOf(c.take())
		want := append(filled(), "+ Service shop/deleted 1", "- Service shop/younger")
		slices.Sort(want)
		compare(t, want, rest)
		if len(reports) == 0 || !strings.Contains(strings.Join(reports, "\n"), "restored") {
			t.Errorf("reports %q", reports)
		}
	})
}

// TestAPIStorageOvertakes restores a snapshot, in which changes then get the same resource versions as other
// changes of the same objects before. The source is cut off until then.
func TestAPIStorageOvertakes(t *testing.T) {
	for _, away := range []time.Duration{time.Second, 10 * time.Minute} {
		runAPI(t, func(c *apiCase) {
			c.started()
			before := c.server.snapshot()
			c.putAll("2")
			c.take()
			c.server.restore(before)
			c.server.stop()
			time.Sleep(away)
			c.putAll("3")
			if away > time.Minute {
				c.server.put(apiNode("there", "1")) // now the server is ahead of what the source has seen
			}
			c.server.start(away < time.Minute)
			time.Sleep(time.Minute)
			_, rest := errorsOf(c.take())
			want := []string{"+ EndpointSlice shop/web-a 3", "+ Node here 3", "+ Service shop/web 3"}
			compare(t, want, rest)
		})
	}
}

// Objects in a new storage are not those with the same names and revisions in the old one.
func TestAPIStorageReplaced(t *testing.T) {
	for _, compact := range []bool{false, true} {
		runAPI(t, func(c *apiCase) {
			c.started()
			c.server.stop()
			time.Sleep(time.Second)
			c.server.reset()
			c.fill()
			c.server.remove(apiCIDR("kubernetes"))
			c.server.start(compact)
			time.Sleep(2 * time.Minute)
			_, rest := errorsOf(c.take())
			compare(c.t, append(filled()[:3], "- ServiceCIDR kubernetes"), rest)
		})
	}
}

// A watch from a revision that the new storage has not reached would get no events.
func TestAPIStorageBehind(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		for range 10 {
			c.putAll("2")
			c.take()
		}
		c.server.stop()
		time.Sleep(5 * time.Second)
		c.server.reset()
		c.server.start(false)
		time.Sleep(time.Minute)
		_, rest := errorsOf(c.take())
		compare(c.t, []string{
			"- EndpointSlice shop/web-a", "- Node here", "- Service shop/web", "- ServiceCIDR kubernetes",
		}, rest)
		c.fill()
		c.expect(filled()...)
	})
}
