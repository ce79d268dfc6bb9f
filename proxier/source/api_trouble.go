package source

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trouble takes in how an attempt at a resource ended; nil is a success. It is called from several goroutines.
func (k *kind) trouble(ctx context.Context, verb string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() != nil { // it is over: nothing is told after Run returned
		return
	}
	if err == nil {
		k.told = ""
		return
	}
	if passes(err) {
		return
	}
	if k.granted && refused(err) {
		k.settle()
	}
	if cause := root(err).Error(); cause != k.told {
		k.told = cause
		var request *url.Error
		if errors.As(err, &request) {
			err = request.Err // without the URL, which is long and says no more
		}
		k.report(fmt.Errorf("%s %s: %w", verb, k.name, err))
	}
}

// passes tells errors that are part of the protocol: the list is asked for again, at another version.
func passes(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// refused tells errors that are an answer, and no passing trouble.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err)
}

// root returns what an error wraps in the end. Of a broken connection that is the part which does not change with the
// attempt, as the local port does.
func root(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
