package state

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// annotated is web with annotations.
func annotated(annotations map[string]string) *corev1.Service {
	svc := web()
	svc.Annotations = annotations
	return svc
}

func TestSchedulerAnnotation(t *testing.T) {
	for _, tt := range []struct {
		text    string
		want    service.Scheduler
		problem string
	}{
		{"random", service.Random, ""},
		{"rr", service.RoundRobin, ""},
		{"wrr", service.RoundRobin, ""},
		{"mh", service.Maglev, ""},
		{"sh", service.SourceHash, ""},
		{"", service.Random, `scheduler "" is not known; it can be random, rr, wrr, mh or sh`},
		{"Rr", service.Random, `scheduler "Rr" is not known; it can be random, rr, wrr, mh or sh`},
		{"wlc", service.Random, "scheduler wlc is not available: it needs the number of open connections of each " +
			"endpoint, which rules cannot compare; rr with the annotation nftproxy.io/weights comes nearest"},
		{"dh", service.Random, "scheduler dh is not available: it chooses by the destination address, which is " +
			"the same for all connections to a Service address; mh comes nearest"},
	} {
		s, want := New("n1"), webRules()
		s.Apply(annotated(map[string]string{annotationScheduler: tt.text, "example.com/scheduler": "x"}))
		want.Scheduler, want.HasScheduler = tt.want, true
		if tt.problem == "" {
			check(t, s, want)
		} else {
			check(t, s, want, "metadata.annotations[nftproxy.io/scheduler]: "+tt.problem+
				"; connections choose at random")
		}
	}
}

// The weight of an address comes before that of a zone, which is that of the endpoint's node.
func TestWeightsAnnotation(t *testing.T) {
	s := New("n1")
	slice := webSlice("a", "10.244.1.1", "10.244.1.2", "10.244.2.1", "10.244.3.1", "10.244.4.1")
	for i, zone := range []string{"eu-1", "eu-1", "eu-2", "eu-3"} {
		node := "node-" + zone
		slice.Endpoints[i].NodeName, slice.Endpoints[i].Zone = &node, &zone
	}
	s.Apply(slice)
	s.Apply(annotated(map[string]string{annotationWeights: "zone:eu-1=3,10.244.1.2=7,zone:eu-2=0,10.9.9.9=5"}))
	svc, problems := s.Service(webName())
	type weight struct {
		weight  uint8
		drained bool
	}
	want := []weight{{3, false}, {7, false}, {0, true}, {0, false}, {0, false}}
	for i, ep := range svc.Ports[0].Endpoints {
		if got := (weight{ep.Weight, ep.Drained}); got != want[i] || len(problems) > 0 {
			t.Errorf("%s: %v, want %v; problems %q", ep.Backend, got, want[i], problems)
		}
	}
}

// The objects of a support bundle have the annotations, so that they give the same rules.
func TestObjectsHaveAnnotations(t *testing.T) {
	s := New("n1")
	s.Apply(annotated(map[string]string{annotationScheduler: "lc", annotationWeights: "10.244.1.1=2",
		"other": "x"}))
	objects := s.serviceObjects(webName())
	got := objects[0].(*corev1.Service).Annotations
	if len(got) != 2 || got[annotationScheduler] != "lc" || got[annotationWeights] != "10.244.1.1=2" {
		t.Errorf("annotations %v", got)
	}
}
