package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/nft"
)

// pollPeriod is how exactly the time of a commit is known. Subscribing to notifications would be exact, and
// would slow down what is measured.
const pollPeriod = 50 * time.Microsecond

// generation watches the number of the nftables ruleset of a namespace, which every commit moves by one.
type generation struct{ conn *nft.Conn }

func newGeneration(ns *lab.Namespace) (*generation, error) {
	conn, err := nft.Dial(nft.Options{NetNS: ns.FD()})
	if err != nil {
		return nil, err
	}
	return &generation{conn}, nil
}

func (g *generation) now() (uint32, error) { return g.conn.Generation() }

// await polls until the generation is not old, and returns when that was.
func (g *generation) await(ctx context.Context, old uint32, limit time.Duration) (time.Time, uint32, error) {
	release := precise()
	defer release()
	deadline := time.Now().Add(limit)
	for {
		gen, err := g.now()
		now := time.Now()
		if err != nil || gen != old {
			return now, gen, err
		}
		if now.After(deadline) {
			return now, gen, fmt.Errorf("nothing was committed within %v", limit)
		}
		if ctx.Err() != nil {
			return now, gen, ctx.Err()
		}
		nap()
	}
}

// quiet polls until the generation has stood still for a while, and returns when it last moved; that is start
// if it did not.
func (g *generation) quiet(ctx context.Context, start time.Time, old uint32, still, limit time.Duration) (time.Time, uint32, error) {
	moved, begin := start, time.Now()
	for {
		at, gen, err := g.await(ctx, old, still)
		if gen == old {
			return moved, gen, ctx.Err() // else await ran into its limit
		}
		if err != nil {
			return moved, gen, err
		}
		moved, old = at, gen
		if time.Since(begin) > limit {
			return moved, gen, fmt.Errorf("commits do not end within %v", limit)
		}
	}
}

// precise has the calling goroutine sleep as exactly as the kernel can.
func precise() (release func()) {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	return func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
		runtime.UnlockOSThread()
	}
}

func nap() {
	t := unix.NsecToTimespec(int64(pollPeriod))
	_ = unix.Nanosleep(&t, nil)
}
