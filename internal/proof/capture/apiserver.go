package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/nftproxy/nftproxy/internal/lab"
)

// apiServer serves the objects of a file, which do not change, without a look at what they say: a real API
// server would refuse some of them.
type apiServer struct {
	objects map[string][]unstructured.Unstructured // by resource
}

// kinds returns the kind and the version of the resources that kube-proxy reads.
func kinds() map[string]metav1.TypeMeta {
	return map[string]metav1.TypeMeta{
		"services":       {Kind: "Service", APIVersion: "v1"},
		"nodes":          {Kind: "Node", APIVersion: "v1"},
		"endpointslices": {Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"},
		"servicecidrs":   {Kind: "ServiceCIDR", APIVersion: "networking.k8s.io/v1"},
	}
}

// load reads the objects of a file.
func load(file string) (objects []unstructured.Unstructured, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for i, document := range bytes.Split(content, []byte("\n---\n")) {
		var o unstructured.Unstructured
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", file, i+1, err)
		}
		o.SetUID(types.UID(fmt.Sprint(i + 1)))
		o.SetResourceVersion(fmt.Sprint(i + 1))
		if err := complete(o.Object); err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", file, i+1, err)
		}
		objects = append(objects, o)
	}
	return objects, nil
}

// complete adds what an API server adds to each Service that lacks it, and what kube-proxy relies on: the
// families of its ClusterIPs (allocator of ClusterIPs), without which kube-proxy serves the first one only,
// and the timeout of session affinity (SetDefaults_Service), without which it crashes.
func complete(object map[string]any) error {
	if affinity, _, _ := unstructured.NestedString(object, "spec", "sessionAffinity"); affinity == "ClientIP" {
		timeout := []string{"spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"}
		if _, has, _ := unstructured.NestedFieldNoCopy(object, timeout...); !has {
			const seconds = int64(corev1.DefaultClientIPServiceAffinitySeconds)
			if err := unstructured.SetNestedField(object, seconds, timeout...); err != nil {
				return err
			}
		}
	}
	clusterIPs, _, _ := unstructured.NestedStringSlice(object, "spec", "clusterIPs")
	if _, has, _ := unstructured.NestedFieldNoCopy(object, "spec", "ipFamilies"); has || len(clusterIPs) == 0 {
		return nil
	}
	var families []string
	for _, ip := range clusterIPs {
		family := corev1.IPv4Protocol
		if strings.Contains(ip, ":") {
			family = corev1.IPv6Protocol
		}
		families = append(families, string(family))
	}
	return unstructured.SetNestedStringSlice(object, families, "spec", "ipFamilies")
}

// serve serves objects on loopback in a namespace. The Addr of the server is where it listens.
func serve(ns *lab.Namespace, objects []unstructured.Unstructured) (*http.Server, error) {
	s := &apiServer{objects: map[string][]unstructured.Unstructured{}}
	for _, o := range objects {
		for resource, typ := range kinds() {
			if typ.Kind == o.GetKind() {
				s.objects[resource] = append(s.objects[resource], o)
			}
		}
	}
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: s, Addr: l.Addr().String()}
	go server.Serve(l)
	return server, nil
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	resource, q := path.Base(r.URL.Path), r.URL.Query()
	typ, known := kinds()[resource]
	label, err := labels.Parse(q.Get("labelSelector"))
	field, err2 := fields.ParseSelector(q.Get("fieldSelector"))
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method != http.MethodGet || !known: // an Event, for example
		http.Error(w, "{}", http.StatusNotFound)
	case err != nil || err2 != nil:
		http.Error(w, "{}", http.StatusBadRequest)
	case q.Get("watch") == "":
		_ = json.NewEncoder(w).Encode(map[string]any{"kind": typ.Kind + "List", "apiVersion": typ.APIVersion,
			"metadata": metav1.ListMeta{ResourceVersion: "1000"}, "items": s.selected(resource, label, field)})
	case q.Get("sendInitialEvents") != "":
		// As API servers before 1.32, which the client asks for a list then.
		http.Error(w, "{}", http.StatusUnprocessableEntity)
	default:
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func (s *apiServer) selected(resource string, label labels.Selector, field fields.Selector) []any {
	out := []any{}
	for _, o := range s.objects[resource] {
		clusterIP, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP")
		has := fields.Set{"metadata.name": o.GetName(), "spec.clusterIP": clusterIP}
		if label.Matches(labels.Set(o.GetLabels())) && field.Matches(has) {
			out = append(out, o.Object)
		}
	}
	return out
}
