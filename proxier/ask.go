package proxier

import (
	"context"
	"errors"
	"fmt"
)

// inquiry is work that needs the reconciler's goroutine.
type inquiry struct {
	do   func(*reconciler) error
	done chan<- error // has room for the result, so that the reconciler does not wait for who has given up
}

// ask runs f in the reconciler's goroutine, between syncs, once there is a ruleset.
func (p *Proxier) ask(ctx context.Context, f func(*reconciler) error) error {
	select {
	case <-p.synced:
	default:
		return errors.New("nothing is programmed yet: the source of objects has not delivered all of them")
	}
	done := make(chan error, 1)
	select {
	case p.asked <- inquiry{f, done}:
		return <-done
	case <-ctx.Done():
		return fmt.Errorf("the daemon is busy with a sync: %w", ctx.Err())
	}
}

func (r *reconciler) answer(q inquiry) {
	if r.builder.Ruleset() == nil {
		q.done <- errors.New("nothing is programmed yet: the first sync has not succeeded")
		return
	}
	q.done <- q.do(r)
}
