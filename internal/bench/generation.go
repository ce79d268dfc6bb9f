package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nftproxy/nftproxy/internal/lab"
	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// pollPeriod limits the error of the time of a commit. A subscription to notifications would have no such
// error, but would slow down the commits.
const pollPeriod = 50 * time.Microsecond

// generation watches the nftables generation of a namespace, which every commit increments.
type generation struct{ conn *netlink.Conn }

func newGeneration(ns *lab.Namespace) (*generation, error) {
	var conn *netlink.Conn
	err := ns.Do(func() (err error) {
		conn, err = netlink.Dial()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &generation{conn}, nil
}

func (g *generation) now() (uint32, error) { return g.conn.Generation() }

// await polls until the generation differs from old, and returns the time of that.
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
			return now, gen, fmt.Errorf("no commit within %v", limit)
		}
		if ctx.Err() != nil {
			return now, gen, ctx.Err()
		}
		nap()
	}
}

// quiet polls until the generation has not changed for the duration still. It returns the time of the last
// change, or start without one.
func (g *generation) quiet(
	ctx context.Context, start time.Time, old uint32, still, limit time.Duration,
) (time.Time, uint32, error) {
	moved, begin := start, time.Now()
	for {
		at, gen, err := g.await(ctx, old, still)
		if gen == old {
			return moved, gen, ctx.Err() // otherwise await reached its limit
		}
		if err != nil {
			return moved, gen, err
		}
		moved, old = at, gen
		if time.Since(begin) > limit {
			return moved, gen, fmt.Errorf("still committing after %v", limit)
		}
	}
}

// precise gives the sleeps of the calling goroutine the full precision of the kernel.
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
