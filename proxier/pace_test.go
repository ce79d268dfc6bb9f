package proxier

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRetry fails many times: the pause doubles up to maxRetry, and starts again at minRetry after a success.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r retry
		if r.pending() || r.due != nil {
			t.Error("a retry is due before the first failure")
		}
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms,
			maxRetry, maxRetry}
		for _, failures := range []int{len(want), 3} {
			var announced, waited []time.Duration
			for range failures {
				announced = append(announced, r.after())
				begin := time.Now()
				r.failed()
				if !r.pending() {
					t.Error("no retry is pending after a failure")
				}
				<-r.due
				waited = append(waited, time.Since(begin))
			}
			if diff := cmp.Diff(want[:failures], waited); diff != "" {
				t.Errorf("pauses (-want +got):\n%s", diff)
			}
			if !slices.Equal(announced, waited) {
				t.Errorf("announced %v, waited %v", announced, waited)
			}
			if r.succeeded(); r.pending() {
				t.Error("a retry is pending after a success")
			}
		}
	})
}

// TestPauseAfter ends syncs that took some time: the pause is what remains of a configured period, and
// otherwise as long as the sync took.
func TestPauseAfter(t *testing.T) {
	for _, tt := range []struct {
		pace       pace
		took, want time.Duration
	}{
		{pace{}, 0, minPause},
		{pace{}, 3 * ms, minPause},
		{pace{}, 60 * ms, 60 * ms},
		{pace{period: time.Second}, 60 * ms, 60 * ms}, // a default of the configuration
		{pace{time.Second, true}, 0, time.Second},
		{pace{time.Second, true}, 300 * ms, 700 * ms},
		{pace{time.Second, true}, 1500 * ms, -500 * ms},
		{pace{0, true}, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			time.Sleep(tt.took)
			if got := tt.pace.pauseAfter(begin); got != tt.want {
				t.Errorf("%+v after %v: pause of %v, want %v", tt.pace, tt.took, got, tt.want)
			}
		})
	}
}

// TestPause pauses for some time, for none, and until its context ends.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, d := range []time.Duration{time.Second, 0, -time.Second} {
			begin := time.Now()
			if pause(t.Context(), d); time.Since(begin) != max(d, 0) {
				t.Errorf("a pause of %v took %v, want %v", d, time.Since(begin), max(d, 0))
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if pause(ctx, time.Hour); time.Since(begin) != time.Minute {
			t.Errorf("a pause whose context ends after 1 m took %v", time.Since(begin))
		}
	})
}
