package source

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// A watch resumes at the version that the reflector has seen last. That is wrong in two ways if the storage
// of the API server was restored from an older snapshot. As long as the storage has not reached that version
// again, the API server accepts the watch and sends nothing. Afterwards it sends what follows that version,
// but not what happened between the snapshot and that version, then and now. Nothing would ever say so.
//
// resume finds the first with a request. The second can only happen to a source that has no watch until the
// storage has reached the version again, which takes about as long as the snapshot was old. Therefore a watch
// that was interrupted for more than 5 minutes does not resume. What remains is a snapshot that is younger
// than that, but older than what the source has seen, restored without the options --bump-revision and
// --mark-compacted of etcdutl, with which no watch resumes at all.

// resume resumes a watch after an interruption. After an error that is an answer the reflector lists.
func (i *informer) resume(
	ctx context.Context, options metav1.ListOptions, interruption time.Duration) (watch.Interface, error) {
	if interruption > i.limits.resume {
		return nil, apierrors.NewResourceExpired("no watch for " + interruption.String())
	}
	err := i.checkVersion(ctx, options)
	var w watch.Interface
	if err == nil {
		w, err = i.watch(ctx, options, i.exchange(ctx))
	}
	i.result(ctx, "watch", err)
	return w, err
}

// checkVersion returns an error if the API server is behind the version at which a watch resumes.
func (i *informer) checkVersion(ctx context.Context, options metav1.ListOptions) error {
	_, err := i.list(i.exchange(ctx).context(ctx), metav1.ListOptions{
		LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector, Limit: 1,
		ResourceVersion:      options.ResourceVersion,
		ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	})
	if i.behind = isTooLarge(err); i.behind {
		i.reportError(fmt.Errorf("watch %s: the API server has older objects than before, as after etcd was "+
			"restored from a snapshot: reading all of them again", i.name))
	}
	return err
}

// forget removes from a request for all objects the version that the reflector has seen last, if the API
// server is behind it: it would wait for it for 3 s and refuse. Without a version, it sends what its storage
// has now.
func (i *informer) forget(options *metav1.ListOptions) {
	if i.behind {
		options.ResourceVersion = ""
	}
}

// isTooLarge returns whether an error says that an API server has not reached a version.
func isTooLarge(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}
