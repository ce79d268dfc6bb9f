package proxier

import (
	"errors"
	"time"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/netlink"
)

// Bounds of what is logged about an operation that is tried again and again, as often as there are changes.
const (
	// patience is how long a passing condition may last before it is an error.
	patience = 10 * time.Second
	// An error is logged again every sameError, and another one no sooner than otherError after the last
	// line.
	sameError  = time.Minute
	otherError = time.Second
)

// failure logs the errors of one operation. The zero value with a message is ready to use.
type failure struct {
	message string

	since  time.Time // of the first of the failures; zero: the last attempt succeeded
	times  int       // how many failures
	err    error     // the last of them
	text   string    // that was logged last; "": none since
	logged time.Time
}

// failed logs an error, unless that says nothing new.
func (f *failure) failed(err error, keysAndValues ...any) {
	now := time.Now()
	if f.since.IsZero() {
		f.since = now
	}
	f.times++
	f.err = err
	keysAndValues = append(keysAndValues, "failures", f.times, "for", now.Sub(f.since).Round(time.Millisecond))
	quiet := otherError
	if f.text == err.Error() {
		quiet = sameError
	}
	if passing(err) && now.Sub(f.since) < patience || f.text != "" && now.Sub(f.logged) < quiet {
		klog.V(2).InfoS(f.message, append(keysAndValues, "err", err)...)
		return
	}
	f.text, f.logged = err.Error(), now
	klog.ErrorS(err, f.message, keysAndValues...)
}

// succeeded ends the failures. It reports whether one of them was logged.
func (f *failure) succeeded() bool {
	logged := f.text != ""
	*f = failure{message: f.message}
	return logged
}

// passing reports whether an error only says that another program changed the ruleset meanwhile. The next
// attempt begins with the ruleset as it is then.
func passing(err error) bool {
	return errors.Is(err, netlink.ErrInterrupted)
}
