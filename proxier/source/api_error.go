package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// result processes the result of a request; a nil error is a success. Several goroutines call it.
func (i *informer) result(ctx context.Context, verb string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case ctx.Err() != nil: // nothing is reported after Run has returned
	case errors.Is(err, net.ErrClosed): // by transport.reconnect, whose cause is reported
	case err != nil && !isAnswer(err):
		if i.outage.unanswered(i, rootCause(err)) {
			i.report.Failed(fmt.Errorf("%s %s: %w; not heard for %v",
				verb, i.name, withoutURL(err), since(i.lastHeard())))
		}
	default:
		began := i.outage.since
		if i.outage.answered(i) {
			i.report.Recovered(fmt.Sprintf("the API server answers again after %v", since(began)))
		}
		i.answer(verb, err)
	}
}

// answer processes an answer of the API server, which may be an error.
func (i *informer) answer(verb string, err error) {
	switch {
	case err == nil:
		if verb == "watch" && i.reported != "" { // the right to list alone does not solve it
			i.reported = ""
			i.report.Recovered(fmt.Sprintf("the API server serves %s again", i.name))
		}
		return
	case isExpired(err):
		return
	case i.authorized && isRefusal(err):
		i.setSynced()
	}
	if cause := rootCause(err); cause != i.reported {
		i.reported = cause
		i.report.Failed(fmt.Errorf("%s %s: %w", verb, i.name, err))
	}
}

// isAnswer returns whether an error is the answer of an API server. It is not if the API server asks to come
// again, because it starts, stops or is overloaded, or if a load balancer says that there is none.
func isAnswer(err error) bool {
	var status apierrors.APIStatus
	return errors.As(err, &status) &&
		!apierrors.IsServiceUnavailable(err) && !apierrors.IsTooManyRequests(err)
}

// withoutURL removes from an error the URL of the request, which is long and adds nothing.
func withoutURL(err error) error {
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err
	}
	return err
}

// leftOut reports an event that was left out, unless the API server has sent the same one again.
func (i *informer) leftOut(ctx context.Context, e largeEvent) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() == nil && e != i.left {
		i.left = e
		i.report.Failed(fmt.Errorf("watch %s: %w", i.name, e))
	}
}

// isExpired returns whether an error is a part of the protocol, after which the reflector lists again at
// another version.
func isExpired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || isTooLarge(err)
}

// isRefusal returns whether an error is an answer that a retry is not likely to change.
func isRefusal(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
}

// rootCause returns the text of the innermost error. For a broken connection it does not change with the
// attempt, as the error around it does, which contains the local port. The text of an error of DNS contains
// such a port itself.
func rootCause(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Sprintf("lookup %s, not found: %t", dns.Name, dns.IsNotFound)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
