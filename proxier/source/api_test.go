package source

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// apiCase runs an API source against a server in a bubble of test time.
type apiCase struct {
	t      *testing.T
	server *apiServer
	sink   *tellingSink
	stop   func()
}

// tellingSink notes what it is told, as "+ Service shop/web a" with the annotation v, and what is reported as "! text".
type tellingSink struct {
	t    *testing.T
	busy sync.Mutex
	told []string
	over bool
}

func (s *tellingSink) note(format string, args ...any) {
	if !s.busy.TryLock() {
		s.t.Error("called concurrently")
		return
	}
	defer s.busy.Unlock()
	if s.over {
		s.t.Error("called after the end of Run")
	}
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

func (s *tellingSink) Apply(obj runtime.Object) {
	o := obj.(object)
	if o.GetManagedFields() != nil {
		s.t.Errorf("%s has managedFields", o.GetName())
	}
	s.note("%s", strings.TrimRight("+ "+title(o)+" "+o.GetLabels()["v"], " "))
}
func (s *tellingSink) Delete(obj runtime.Object) { s.note("- %s", title(obj.(object))) }
func (s *tellingSink) Synced()                   { s.note("synced") }

func title(o object) string {
	name := strings.TrimPrefix(o.GetNamespace()+"/"+o.GetName(), "/")
	return strings.TrimPrefix(fmt.Sprintf("%T ", o), "*v1.") + name
}

// runAPI calls steps in a bubble; begin starts the source.
func runAPI(t *testing.T, steps func(c *apiCase)) {
	t.Helper()
	for _, mode := range []string{"watch list", "list and watch"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &apiCase{t: t, server: newAPIServer(t), sink: &tellingSink{t: t}, stop: func() {}}
				c.server.noWatchList = mode == "list and watch"
				steps(c)
				c.stop()
			})
		})
	}
}

// begin starts the source on the node here.
func (c *apiCase) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	api := NewAPI(c.server.client(c.t), "here")
	go func() {
		err := api.Run(ctx, c.sink, func(err error) { c.sink.note("! %v", err) })
		c.sink.busy.Lock()
		defer c.sink.busy.Unlock()
		c.sink.over = true
		done <- err
	}()
	c.stop = func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("Run returned %v", err)
		}
	}
}

// take waits until nothing goes on, and returns what the sink was told since the last time.
func (c *apiCase) take() []string {
	synctest.Wait()
	c.sink.busy.Lock()
	defer c.sink.busy.Unlock()
	told := c.sink.told
	c.sink.told = nil
	return told
}

// expect waits until nothing goes on, and compares what the sink was told since the last time. The resources come in
// without an order among them, so what is told is sorted, "synced" last.
func (c *apiCase) expect(want ...string) {
	c.t.Helper()
	compare(c.t, want, c.take())
}

func compare(t *testing.T, want, got []string) {
	t.Helper()
	if i := slices.Index(got, "synced"); i >= 0 {
		slices.Sort(got[:i])
		slices.Sort(got[i+1:])
	} else {
		slices.Sort(got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func meta(name, v string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{"v": v}}
}

func apiService(name, v string) *corev1.Service {
	return &corev1.Service{ObjectMeta: meta(name, v), Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1"}}
}

func apiSlice(name, v string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{ObjectMeta: meta(name, v), AddressType: discoveryv1.AddressTypeIPv4}
}

func apiNode(name, v string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: meta(name, v)}
	n.Namespace = ""
	return n
}

func apiCIDR(name string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// fill puts one object of each kind on the server.
func (c *apiCase) fill() {
	for _, obj := range []object{apiService("web", "1"), apiSlice("web-a", "1"), apiNode("here", "1"), apiCIDR("kubernetes")} {
		c.server.put(obj)
	}
}

// started fills the server, starts the source and takes in what it tells at first.
func (c *apiCase) started() {
	c.t.Helper()
	c.fill()
	c.begin()
	c.expect("+ EndpointSlice shop/web-a 1", "+ Node here 1", "+ Service shop/web 1", "+ ServiceCIDR kubernetes", "synced")
}

func TestAPIFollows(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		c.server.put(apiService("web", "2"))
		c.server.put(apiService("new", "1"))
		c.server.remove(apiSlice("web-a", ""))
		c.server.put(apiNode("here", "2"))
		c.server.remove(apiCIDR("kubernetes"))
		c.expect("+ Node here 2", "+ Service shop/new 1", "+ Service shop/web 2", "- EndpointSlice shop/web-a", "- ServiceCIDR kubernetes")
	})
}

func TestAPILeavesOut(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		headless, foreign := apiService("headless", "1"), apiService("foreign", "1")
		headless.Spec.ClusterIP = "None"
		foreign.Labels["service.kubernetes.io/service-proxy-name"] = "other"
		slice := apiSlice("headless-a", "1")
		slice.Labels["service.kubernetes.io/headless"] = ""
		for _, obj := range []object{headless, foreign, slice, apiNode("there", "1")} {
			c.server.put(obj)
		}
		c.started()
		for _, obj := range []object{headless, foreign, slice, apiNode("there", "2")} {
			obj.GetLabels()["v"] = "2"
			c.server.put(obj)
		}
		c.expect()
		c.server.put(apiService("foreign", "3")) // it is ours now
		c.expect("+ Service shop/foreign 3")
		c.server.put(foreign)
		c.expect("- Service shop/foreign")
	})
}

func TestAPIEmptyCluster(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.put(apiNode("here", "1"))
		c.begin()
		c.expect("+ Node here 1", "synced")
	})
}

func TestAPIAway(t *testing.T) {
	for _, compact := range []bool{false, true} {
		runAPI(t, func(c *apiCase) {
			c.server.put(apiService("old", "1"))
			c.fill()
			c.begin()
			c.take()

			c.server.stop()
			time.Sleep(10 * time.Minute)
			told := c.take()
			for _, line := range told {
				if line[0] != '!' || !strings.HasSuffix(line, "connect: connection refused") {
					c.t.Errorf("told %q", line)
				}
			}
			if len(told) != 4 { // one for each resource
				c.t.Errorf("%d reports of one outage:\n%s", len(told), strings.Join(told, "\n"))
			}
			c.server.put(apiService("web", "2"))
			c.server.remove(apiService("old", ""))
			c.server.start(compact)
			time.Sleep(2 * time.Minute)
			c.expect("+ Service shop/web 2", "- Service shop/old")

			c.server.stop()
			c.server.start(compact)
			time.Sleep(2 * time.Minute)
			c.expect()
		})
	}
}

func TestAPIWatchEnds(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		before := c.server.count("watch services")
		time.Sleep(time.Hour) // a watch is for no more than 10 minutes
		c.expect()
		if n := c.server.count("watch services") - before; n < 5 {
			c.t.Errorf("%d watches in an hour", n)
		}
	})
}

// Objects of the same names at the same revisions are others.
func TestAPIEmptyHanded(t *testing.T) {
	for _, compact := range []bool{false, true} {
		runAPI(t, func(c *apiCase) {
			c.started()
			c.server.stop()
			time.Sleep(time.Second)
			c.server.forget()
			c.fill()
			c.server.remove(apiCIDR("kubernetes"))
			c.server.start(compact)
			time.Sleep(2 * time.Minute)
			told := slices.DeleteFunc(c.take(), func(line string) bool { return line[0] == '!' })
			compare(c.t, []string{"+ EndpointSlice shop/web-a 1", "+ Node here 1", "+ Service shop/web 1", "- ServiceCIDR kubernetes"}, told)
		})
	}
}

// A watch from a revision that the new storage does not have yet would be silent.
func TestAPIBehind(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.started()
		for range 10 {
			for _, obj := range []object{apiService("web", "2"), apiSlice("web-a", "2"), apiNode("here", "2"), apiCIDR("kubernetes")} {
				c.server.put(obj)
			}
			c.take()
		}
		c.server.stop()
		time.Sleep(5 * time.Second)
		c.server.forget()
		c.server.start(false)
		time.Sleep(time.Minute)
		told := slices.DeleteFunc(c.take(), func(line string) bool { return line[0] == '!' })
		compare(c.t, []string{"- EndpointSlice shop/web-a", "- Node here", "- Service shop/web", "- ServiceCIDR kubernetes"}, told)
		c.fill()
		c.expect("+ EndpointSlice shop/web-a 1", "+ Node here 1", "+ Service shop/web 1", "+ ServiceCIDR kubernetes")
	})
}

func forbidden(verb, resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", fmt.Errorf("no right to %s", verb))
}

func TestAPIForbidden(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		for _, resource := range []string{"services", "nodes", "servicecidrs"} {
			c.server.answer("list "+resource, forbidden("list", resource))
			c.server.answer("watch "+resource, forbidden("watch", resource))
		}
		c.fill()
		c.begin()
		time.Sleep(10 * time.Minute)
		c.expect(
			"! list nodes: nodes is forbidden: no right to list",
			"! list servicecidrs: servicecidrs is forbidden: no right to list",
			"! list services: services is forbidden: no right to list",
			"+ EndpointSlice shop/web-a 1",
		)
		c.server.answer("list services", nil)
		time.Sleep(2 * time.Minute)
		c.expect("! watch services: services is forbidden: no right to watch", "+ Service shop/web 1", "synced")
		c.server.answer("watch services", nil)
		c.server.answer("list nodes", nil)
		c.server.answer("watch nodes", nil)
		time.Sleep(2 * time.Minute)
		c.expect("+ Node here 1")
	})
}

func TestAPIStartsWithoutNode(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.fill()
		c.server.remove(apiNode("here", ""))
		c.begin()
		time.Sleep(groundPatience - time.Second)
		c.expect("+ EndpointSlice shop/web-a 1", "+ Service shop/web 1", "+ ServiceCIDR kubernetes")
		time.Sleep(time.Second)
		c.expect("! start without nodes: there are none after 30s", "synced")
		c.server.put(apiNode("here", "1"))
		c.expect("+ Node here 1")
	})
}

func TestAPIAwaitsNode(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.begin()
		time.Sleep(groundPatience - time.Second)
		c.expect()
		c.server.put(apiNode("here", "1"))
		c.expect("+ Node here 1", "synced")
	})
}

func TestAPIServiceCIDRsNotServed(t *testing.T) {
	runAPI(t, func(c *apiCase) {
		c.server.noCIDRs = true
		c.server.answer("look for servicecidrs", apierrors.NewInternalError(fmt.Errorf("starting")))
		c.fill()
		c.begin()
		want := []string{"+ EndpointSlice shop/web-a 1", "+ Node here 1", "+ Service shop/web 1"}
		c.expect(append([]string{"! look for servicecidrs: Internal error occurred: starting"}, want...)...)
		c.server.answer("look for servicecidrs", nil)
		time.Sleep(10 * time.Second)
		c.expect("synced")
		time.Sleep(time.Hour)
		if n := c.server.count("list servicecidrs") + c.server.count("watch servicecidrs"); n > 0 {
			c.t.Errorf("%d requests for what is not served", n)
		}
	})
}

func TestReduce(t *testing.T) {
	full := apiSlice("a", "1")
	full.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "now", "other": "x"}
	full.Finalizers = []string{"x"}
	full.OwnerReferences = []metav1.OwnerReference{{Name: "x"}}
	full.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, TargetRef: &corev1.ObjectReference{Name: "pod"}}}
	reduce(full)
	want := apiSlice("a", "1")
	want.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: "now"}
	want.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}}}
	if diff := cmp.Diff(want, full); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
