package host

import "testing"

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{"0\n": 1, "0-1\n": 2, "0-3,8,10-11\n": 7, "": 0, "x": 0} {
		if got := countCPUs(list); got != want {
			t.Errorf("%q has %d CPUs, want %d", list, got, want)
		}
	}
	if CPUs() < 1 {
		t.Error("this machine has no CPU")
	}
}
