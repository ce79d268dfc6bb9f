package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// result processes the result of a request; a nil error is a success. Several goroutines call it.
func (i *informer) result(ctx context.Context, verb string, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() != nil { // nothing is reported after Run has returned
		return
	}
	if err == nil {
		i.reported = ""
		return
	}
	if isExpired(err) {
		return
	}
	if i.authorized && isRefusal(err) {
		i.setSynced()
	}
	if cause := rootCause(err); cause != i.reported {
		i.reported = cause
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err // without the URL, which is long and adds nothing
		}
		i.report(fmt.Errorf("%s %s: %w", verb, i.name, err))
	}
}

// leftOut reports an event that was left out, unless the API server has sent the same one again.
func (i *informer) leftOut(ctx context.Context, e largeEvent) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() == nil && e != i.left {
		i.left = e
		i.report(fmt.Errorf("watch %s: %w", i.name, e))
	}
}

// isExpired returns whether an error is a part of the protocol, after which the reflector lists again at
// another version.
func isExpired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
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
