package proxier

import (
	"errors"
	"fmt"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/source"
	"github.com/nftproxy/nftproxy/rules"
)

// Reasons of Events about Services.
const (
	reasonProblem  = "NotProgrammed"
	reasonConflict = "FrontendConflict"
)

// Problem is something of a Service that is not programmed.
type Problem struct {
	Service rules.ServiceName
	Reason  string
	Message string
}

func (p Problem) Error() string { return fmt.Sprintf("Service %s: %s", p.Service, p.Message) }

// LogProblem logs a problem of a source.
func LogProblem(err error) {
	var ignored source.Ignored
	if errors.As(err, &ignored) {
		klog.InfoS("Some objects are of no interest here", "objects", ignored.Error())
		return
	}
	klog.InfoS("A part of the objects is not used", "problem", err.Error())
}
