package spec

import (
	"net/netip"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// weightless reports whether an endpoint has the weight 0, so that it gets no new connections: by its address
// or else by its zone. Of two weights the first counts, and one that is not a number from 0 to 100 does not
// (docs/annotations.md, "nftproxy.io/weights").
func weightless(s *corev1.Service, a netip.Addr, zone *string) bool {
	inZone, zoneKnown := false, false
	for item := range strings.SplitSeq(s.Annotations["nftproxy.io/weights"], ",") {
		whose, text, _ := strings.Cut(item, "=")
		weight, err := strconv.Atoi(text)
		if err != nil || weight < 0 || weight > 100 || strconv.Itoa(weight) != text {
			continue
		}
		if named, err := netip.ParseAddr(whose); err == nil && named == a {
			return weight == 0
		}
		if zone != nil && *zone != "" && whose == "zone:"+*zone && !zoneKnown {
			inZone, zoneKnown = weight == 0, true
		}
	}
	return inZone
}

// oneForEach reports whether the address of a client chooses its endpoint (docs/annotations.md, scheduler
// sh). With session affinity it does not.
func oneForEach(s *corev1.Service) bool {
	return s.Annotations["nftproxy.io/scheduler"] == "sh" &&
		s.Spec.SessionAffinity != corev1.ServiceAffinityClientIP
}
