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

// Service is what a health check of a Service answers from.
type Service struct {
	Port           uint16 // spec.healthCheckNodePort; 0 is none
	LocalEndpoints int    // ready endpoints on this node
}

// ListenError says that a Service's health check cannot be asked on one address.
type ListenError struct {
	Service service.Name
	Addr    netip.AddrPort
	Err     error
}

// Error names the Service, the address and what the system said.
func (e *ListenError) Error() string {
	return fmt.Sprintf("health check of service %s on %s: %v", e.Service, e.Addr, e.Err)
}

// Unwrap returns what the system said.
func (e *ListenError) Unwrap() error { return e.Err }

// ServiceHealth serves the healthCheckNodePorts: one HTTP listener for each Service
// and node address, with which load balancers learn how many endpoints of the Service
// are here. It is safe for concurrent use.
type ServiceHealth struct {
	proxierHealthy func() bool

	mu       sync.Mutex
	services map[service.Name]*serviceHandler
	wanted   map[endpoint]bool
	open     map[endpoint]*listener
	closing  sync.WaitGroup // listeners that finish what was asked before they closed
}

// endpoint is where one Service is asked. The Service is part of it so that a port
// that passes from one Service to another is closed and opened.
type endpoint struct {
	service service.Name
	addr    netip.AddrPort
}

func (e endpoint) compare(f endpoint) int {
	return cmp.Or(e.service.Compare(f.service), e.addr.Compare(f.addr))
}

// NewServiceHealth returns a ServiceHealth without Services. proxierHealthy is asked
// at each request; ProxierHealth.Healthy is meant.
func NewServiceHealth(proxierHealthy func() bool) *ServiceHealth {
	return &ServiceHealth{
		proxierHealthy: proxierHealthy,
		services:       map[service.Name]*serviceHandler{},
		wanted:         map[endpoint]bool{},
		open:           map[endpoint]*listener{},
	}
}

// Sync makes services, each on all of addrs, what is served, and leaves alone the
// listeners that stay. An unspecified address stands for every address of its family
// and must not be accompanied by another of that family. Sync returns, in order of
// Service and address, what could not be opened; that is tried again by the next Sync
// or Retry, while everything else is served.
func (s *ServiceHealth) Sync(services map[service.Name]Service, addrs []netip.Addr) []*ListenError {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = make(map[endpoint]bool, len(services)*len(addrs))
	for name, svc := range services {
		if svc.Port == 0 {
			continue
		}
		h := s.services[name]
		if h == nil {
			h = &serviceHandler{name: name, proxierHealthy: s.proxierHealthy}
			s.services[name] = h
		}
		h.localEndpoints.Store(int64(svc.LocalEndpoints))
		for _, addr := range addrs {
			s.wanted[endpoint{name, netip.AddrPortFrom(addr.Unmap(), svc.Port)}] = true
		}
	}
	maps.DeleteFunc(s.services, func(name service.Name, _ *serviceHandler) bool {
		return services[name].Port == 0
	})
	s.closeUnwanted()
	return s.openWanted()
}

// Retry tries again to open what the last Sync or Retry could not, and returns what
// still cannot be opened.
func (s *ServiceHealth) Retry() []*ListenError {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openWanted()
}

// Close stops serving, and returns when the requests under way are answered, at the
// latest after closeTimeout.
func (s *ServiceHealth) Close() {
	s.Sync(nil, nil)
	s.closing.Wait()
}

// closeUnwanted comes before openWanted: what is to be opened may be in the way of
// what goes, a port of another Service or an address that 0.0.0.0 includes.
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
		l, err := listen(at.addr, s.services[at.service])
		if err != nil {
			errs = append(errs, &ListenError{Service: at.service, Addr: at.addr, Err: err})
			continue
		}
		s.open[at] = l
	}
	return errs
}

// serviceHandler answers for one Service.
type serviceHandler struct {
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

func (h *serviceHandler) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
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
