package desired

import (
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/source"
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

func (p Problem) Error() string { return fmt.Sprintf("Service %s: %s", p.Service, p.Message) }

// LogProblem logs a problem with objects of a source.
func LogProblem(err error) {
	var passed *source.Passed
	if errors.As(err, &passed) {
		klog.InfoS("Ignored objects of other kinds", "objects", passed.Error())
		return
	}
	klog.InfoS("Skipped invalid object", "err", err)
}
