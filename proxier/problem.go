package proxier

import (
	"errors"
	"sync"

	"k8s.io/klog/v2"

	"github.com/nftproxy/nftproxy/proxier/source"
)

// problemLog logs what is wrong with objects, each thing once.
type problemLog struct {
	mu   sync.Mutex
	seen map[Problem]struct{}
}

// maxProblems bounds what is remembered; after that, problems may be told again.
const maxProblems = 10000

func newProblemLog() *problemLog { return &problemLog{seen: map[Problem]struct{}{}} }

// service logs a problem of a Service, unless it was logged before.
func (l *problemLog) service(p Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.seen[p]; ok {
		return
	}
	if len(l.seen) >= maxProblems {
		clear(l.seen)
	}
	l.seen[p] = struct{}{}
	klog.InfoS("A part of a Service is not programmed", "service", p.Service, "problem", p.Message)
}

// source logs a problem of the source.
func (l *problemLog) source(err error) { LogSourceProblem(err) }

// LogSourceProblem logs a problem of a source of manifests.
func LogSourceProblem(err error) {
	var passed *source.Passed
	if errors.As(err, &passed) {
		klog.InfoS("Some objects are of no interest here", "objects", passed.Error())
		return
	}
	klog.InfoS("A part of the manifests is not used", "problem", err.Error())
}
