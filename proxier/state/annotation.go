package state

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Annotations of Services that are nftproxy's own. kube-proxy ignores them.
const (
	annotationScheduler = service.AnnotationPrefix + "scheduler"
	annotationWeights   = service.AnnotationPrefix + "weights"
)

// maxWeight bounds weights: an endpoint gets so many slots at most.
const maxWeight = 100

// weights are the weights of endpoints: by their address, or else by the zone of their node.
type weights struct {
	addrs map[netip.Addr]uint8
	zones map[string]uint8
}

// annotations reads the annotations of a Service.
func (s *serviceState) annotations(svc *corev1.Service) {
	for _, name := range slices.Sorted(maps.Keys(svc.Annotations)) {
		if !strings.HasPrefix(name, service.AnnotationPrefix) {
			continue
		}
		text := svc.Annotations[name]
		switch name {
		case annotationScheduler:
			scheduler, err := service.ParseScheduler(text)
			if err != nil {
				s.problem("metadata.annotations[%s]: %v; connections choose at random", name, err)
			}
			s.rules.Scheduler, s.rules.HasScheduler = scheduler, true
		case annotationWeights:
			s.parseWeights(text)
		default:
			s.problem("metadata.annotations[%s]: nftproxy has no such annotation", name)
			continue
		}
		if s.annotated == nil {
			s.annotated = map[string]string{}
		}
		s.annotated[name] = text
	}
}

// parseWeights reads weights: 10.244.1.11=3,zone:eu-1=0.
func (s *serviceState) parseWeights(text string) {
	w := &weights{addrs: map[netip.Addr]uint8{}, zones: map[string]uint8{}}
	for item := range strings.SplitSeq(text, ",") {
		if err := w.parse(item); err != nil {
			s.problem("metadata.annotations[%s]: %q: %v", annotationWeights, item, err)
		}
	}
	s.weights = w
}

func (w *weights) parse(item string) error {
	whose, number, ok := strings.Cut(item, "=")
	if !ok {
		return fmt.Errorf("is not ADDRESS=WEIGHT or zone:ZONE=WEIGHT")
	}
	weight, err := strconv.ParseUint(number, 10, 8)
	if err != nil || weight > maxWeight || number != strconv.FormatUint(weight, 10) {
		return fmt.Errorf("%q is not a number from 0 to %d", number, maxWeight)
	}
	var twice bool
	if zone, ok := strings.CutPrefix(whose, "zone:"); ok {
		if zone == "" {
			return fmt.Errorf("the name of the zone is missing")
		}
		if _, twice = w.zones[zone]; !twice {
			w.zones[zone] = uint8(weight)
		}
	} else {
		addr, err := parseAddr(whose)
		if err != nil {
			return err
		}
		if _, twice = w.addrs[addr]; !twice {
			w.addrs[addr] = uint8(weight)
		}
	}
	if twice {
		return fmt.Errorf("%s has two weights, the first counts", whose)
	}
	return nil
}

// weigh gives an endpoint its weight.
func (w *weights) weigh(ep *service.Endpoint, zones map[string]string) {
	if w == nil {
		return
	}
	weight, ok := w.addrs[ep.Backend.Addr()]
	if zone := zones[ep.Node]; !ok && zone != "" {
		weight, ok = w.zones[zone]
	}
	if ok {
		ep.Weight, ep.Drained = weight, weight == 0
	}
}
