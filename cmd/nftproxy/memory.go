package main

import (
	"context"
	"os"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"k8s.io/klog/v2"
)

// gcPercent makes the garbage collector run twice as often as by default. There is little garbage, so this
// costs almost nothing, and it saves a quarter of the daemon's memory.
const gcPercent = 50

// goShare is the part of a container's memory that the Go runtime may use before it collects garbage more
// often. The rest is for what the kernel charges to the container as well: the elements of the maps, 0.45 kB
// for a Service with three endpoints, and the pages of the program that are in memory.
const goShare = 0.8

// limitPeriod is how often the limit is read. It may change while the container runs (Kubernetes 1.33).
const limitPeriod = time.Minute

// boundMemory adapts the garbage collector to the memory limit of the container until ctx ends. GOGC,
// GOMEMLIMIT and AUTOMEMLIMIT in the environment take precedence. Without a limit there is nothing to do.
func boundMemory(ctx context.Context) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	_, err := memlimit.Set(memlimit.WithRatio(goShare), memlimit.WithRefreshInterval(ctx, limitPeriod))
	if err != nil {
		klog.InfoS("Failed to read the memory limit of the container, set GOMEMLIMIT if it has one", "err", err)
	}
}
