package health

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/nftproxy/nftproxy/rules/service"
)

// Service is the state of a Service that its health check reports.
type Service struct {
	Port uint16 // spec.healthCheckNodePort; 0 means that there is none
	// LocalEndpoints counts ready endpoints on this node, for each family of the Service. The health check
	// listens on addresses of these families only.
	LocalEndpoints map[service.Family]int
}

// ListenError reports that the health check of a Service does not listen on one address.
type ListenError struct {
	Service service.Name
	Addr    netip.AddrPort
	Err     error
}

// Error returns the Service, the address and the system's error.
func (e *ListenError) Error() string {
	return fmt.Sprintf("health check of service %s on %s: %v", e.Service, e.Addr, e.Err)
}

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

// ServiceHealth serves the healthCheckNodePorts: one HTTP listener for each Service and node address. Load
// balancers ask it how many endpoints of the Service are on this node. As in kube-proxy, the families are
// independent: a load balancer for IPv4 must not choose a node whose endpoints are all IPv6. It is safe for
// concurrent use.
type ServiceHealth struct {
	proxierHealthy func() bool
	limit          connLimit // of all listeners together

	mu       sync.Mutex
	handlers map[check]*handler
	wanted   map[endpoint]bool
	open     map[endpoint]*listener
	closing  sync.WaitGroup // closed listeners with open requests
}

// check is the health check of one Service in one family.
type check struct {
	service service.Name
	family  service.Family
}

// endpoint is where the health check of one Service listens. It includes the Service so that a port that
// moves from one Service to another is closed and opened.
type endpoint struct {
	service service.Name
	addr    netip.AddrPort
}

func (e endpoint) check() check { return check{e.service, service.FamilyOf(e.addr.Addr())} }

func (e endpoint) compare(f endpoint) int {
	return cmp.Or(e.service.Compare(f.service), e.addr.Compare(f.addr))
}

// NewServiceHealth returns a ServiceHealth without Services. It calls proxierHealthy, which is
// ProxierHealth.Healthy, for each request.
func NewServiceHealth(proxierHealthy func() bool) *ServiceHealth {
	return &ServiceHealth{
		proxierHealthy: proxierHealthy,
		handlers:       map[check]*handler{},
		wanted:         map[endpoint]bool{},
		open:           map[endpoint]*listener{},
	}
}

// Sync serves these Services, each on those of addrs that are of its families, and no others. Listeners that
// stay are not touched. An unspecified address means every address of its family; addrs must not have another
// address of that family then. Sync returns the errors of listeners that could not be opened, in the order of
// Service and address; the next Sync or Retry tries them again. All others are served.
func (s *ServiceHealth) Sync(services map[service.Name]Service, addrs []netip.Addr) []*ListenError {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = make(map[endpoint]bool, len(services)*len(addrs))
	for name, svc := range services {
		if svc.Port == 0 {
			continue
		}
		for family, n := range svc.LocalEndpoints {
			s.handler(check{name, family}).localEndpoints.Store(int64(n))
		}
		for _, addr := range addrs {
			at := endpoint{name, netip.AddrPortFrom(addr.Unmap(), svc.Port)}
			if _, ok := svc.LocalEndpoints[at.check().family]; ok {
				s.wanted[at] = true
			}
		}
	}
	maps.DeleteFunc(s.handlers, func(c check, _ *handler) bool {
		svc := services[c.service]
		_, ok := svc.LocalEndpoints[c.family]
		return svc.Port == 0 || !ok
	})
	s.closeUnwanted()
	return s.openWanted()
}

// handler returns the handler of a health check. It makes it if there is none.
func (s *ServiceHealth) handler(c check) *handler {
	h := s.handlers[c]
	if h == nil {
		h = &handler{name: c.service, proxierHealthy: s.proxierHealthy}
		s.handlers[c] = h
	}
	return h
}

// Retry tries again to open the listeners that the last Sync or Retry could not open, and returns the errors.
func (s *ServiceHealth) Retry() []*ListenError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openWanted()
}

// Close stops serving, and returns when the open requests are answered, at the latest after closeTimeout.
func (s *ServiceHealth) Close() {
	s.Sync(nil, nil)
	s.closing.Wait()
}

// closeUnwanted runs before openWanted, because a new listener may need the address of an old one: the port
// moved to another Service, or 0.0.0.0 includes the address.
func (s *ServiceHealth) closeUnwanted() {
	for at, l := range s.open {
		if !s.wanted[at] {
			l.stop()
			s.closing.Go(l.drain)
			delete(s.open, at)
		}
	}
}

func (s *ServiceHealth) openWanted() []*ListenError {
	if len(s.open) == len(s.wanted) {
		return nil // open is always a subset of wanted here
	}
	var errs []*ListenError
	for _, at := range slices.SortedFunc(maps.Keys(s.wanted), endpoint.compare) {
		if s.open[at] != nil {
			continue
		}
		l, err := listen(at.addr, s.handlers[at.check()], &s.limit)
		if err != nil {
			errs = append(errs, &ListenError{Service: at.service, Addr: at.addr, Err: err})
			continue
		}
		s.open[at] = l
	}
	return errs
}

// handler answers the health check of one Service in one family.
type handler struct {
	name           service.Name
	localEndpoints atomic.Int64
	proxierHealthy func() bool
}

type serviceBody struct {
	Service struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"service"`
	LocalEndpoints      int64 `json:"localEndpoints"`
	ServiceProxyHealthy bool  `json:"serviceProxyHealthy"`
}

func (h *handler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	body := serviceBody{LocalEndpoints: h.localEndpoints.Load(), ServiceProxyHealthy: h.proxierHealthy()}
	body.Service.Namespace, body.Service.Name = h.name.Namespace, h.name.Name
	code := http.StatusServiceUnavailable
	if body.LocalEndpoints > 0 && body.ServiceProxyHealthy {
		code = http.StatusOK
	}
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(body.LocalEndpoints, 10))
	text, err := json.MarshalIndent(body, "", "\t") // kube-proxy's indentation
	writeJSON(w, code, text, err)
}
