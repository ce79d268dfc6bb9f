package desired

import (
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/filewatch"
	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules"
	"github.com/nftproxy/nftproxy/rules/service"
)

// Reasons of Events about Services.
const (
	ReasonNotProgrammed = "NotProgrammed"
	ReasonConflict      = "FrontendConflict"
)

// Problem is a part of a Service that is not programmed, with the reason of its Event.
type Problem struct {
	Service service.Name
	Reason  string
	Message string
}

// Conflict returns the problem of a Service whose frontend another Service has.
func Conflict(c rules.Conflict) Problem {
	why := ", which is older"
	if c.WinnerKind != c.LoserKind {
		why = fmt.Sprintf(": %ss come before %ss", c.WinnerKind, c.LoserKind)
	}
	return Problem{c.Loser, ReasonConflict,
		fmt.Sprintf("%s is taken by Service %s%s", c.Frontend, c.Winner, why)}
}

func (p Problem) Error() string { return fmt.Sprintf("Service %s: %s", p.Service, p.Message) }

// LogProblem logs a problem of manifests or of an object.
func LogProblem(err error) {
	if ignored, ok := errors.AsType[source.Ignored](err); ok {
		klog.InfoS("Ignored objects of other kinds", "objects", ignored.Error())
		return
	}
	if _, ok := errors.AsType[filewatch.Polling](err); ok {
		klog.InfoS("Polling files", "reason", err)
		return
	}
	klog.InfoS("Skipped invalid object", "err", err)
}
