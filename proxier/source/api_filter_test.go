package source

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
)

// filter is a pair of selectors.
type filter struct {
	labels labels.Selector
	fields fields.Selector
}

func newFilter(l, f string) filter {
	out := filter{labels: labels.Everything(), fields: fields.Everything()}
	if l != "" {
		out.labels, _ = labels.Parse(l)
	}
	if f != "" {
		out.fields, _ = fields.ParseSelector(f)
	}
	return out
}

func (f filter) matches(obj object) bool {
	known := fields.Set{"metadata.name": obj.GetName()}
	if svc, ok := obj.(*corev1.Service); ok {
		known["spec.clusterIP"] = svc.Spec.ClusterIP
	}
	return f.labels.Matches(labels.Set(obj.GetLabels())) && f.fields.Matches(known)
}
