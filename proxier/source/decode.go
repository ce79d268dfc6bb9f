package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kjson "sigs.k8s.io/json"
)

// maxNesting is how deep Lists may stand in Lists; kubectl prints one level.
const maxNesting = 4

// object is a Kubernetes object of one of the four kinds.
type object interface {
	runtime.Object
	metav1.Object
}

// identity tells objects apart.
type identity struct {
	kind, namespace, name string // namespace is empty for kinds without
}

// manifest is an object and where it was read.
type manifest struct {
	identity
	object object
	place  place
}

// contents is what a file holds.
type contents struct {
	manifests []manifest // in the order of the file
	problems  []error
	passed    map[string]int // objects of other kinds
	partial   bool           // something in the file could not be decoded: an object may be missing
}

// header is what every object begins with.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// list is a List, or a list of one kind.
type list struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []json.RawMessage `json:"items"`
}

// decode reads the manifests of a file. Each document, and each item of a List, stands for itself: what is wrong with one
// is a problem and the others are kept.
func decode(file string, data []byte) contents {
	c := contents{passed: map[string]int{}}
	at := place{file: file}
	for _, document := range splitDocuments(data) {
		values, strict, err := document.values()
		for _, value := range values {
			at.document++
			c.note(at, strict...)
			c.value(at, value, header{}, 0)
		}
		if err != nil {
			at.document++
			c.lose(at, err)
		}
	}
	return c
}

// note records problems that cost nothing.
func (c *contents) note(at place, errs ...error) {
	for _, err := range errs {
		c.problems = append(c.problems, fmt.Errorf("%s: %w", at, err))
	}
}

// lose records a problem for which something is left out.
func (c *contents) lose(at place, err error) {
	c.note(at, err)
	c.partial = true
}

// value takes an object or a List. What its header lacks is taken from implied: the items of a ServiceList need not
// say that they are Services.
func (c *contents) value(at place, data []byte, implied header, depth int) {
	h := implied
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, &h); err != nil {
		c.lose(at, fieldError[header](data, err))
		return
	}
	if h.Kind == "" {
		c.lose(at, errors.New("kind: missing"))
		return
	}
	if h.APIVersion == "" {
		c.lose(at, errors.New("apiVersion: missing"))
		return
	}
	kind, isList := strings.CutSuffix(h.Kind, "List")
	of := header{APIVersion: h.APIVersion, Kind: kind}
	if h == (header{APIVersion: "v1", Kind: "List"}) {
		of = header{}
	} else if known := versions(kind); !slices.Contains(known, h.APIVersion) {
		if known != nil && group(known[0]) == group(h.APIVersion) {
			c.lose(at, fmt.Errorf("apiVersion: %s has no %s that is understood here; want %s", h.APIVersion, h.Kind, known[0]))
		} else {
			c.pass(h)
		}
		return
	}
	if isList {
		c.list(at, data, of, depth)
	} else {
		c.object(at, data, kind)
	}
}

// pass counts an object that is of no use here.
func (c *contents) pass(h header) {
	kind := h.Kind
	if versions(kind) != nil { // a Service, but of another API group
		kind += "." + group(h.APIVersion)
	}
	c.passed[kind]++
}

// list takes each item of a List.
func (c *contents) list(at place, data []byte, of header, depth int) {
	if depth == maxNesting {
		c.lose(at, fmt.Errorf("lists nested more than %d deep", maxNesting))
		return
	}
	var l list
	strict, err := kjson.UnmarshalStrict(data, &l)
	if err != nil {
		c.lose(at, fieldError[list](data, err))
		return
	}
	c.note(at, strict...)
	for i, item := range l.Items {
		c.value(at.item(i), item, of, depth+1)
	}
}

// object takes an object of one of the four kinds.
func (c *contents) object(at place, data []byte, kind string) {
	id := identify(kind, data)
	at.object = id.String()
	obj, strict, err := decodeKind(kind, data)
	if err != nil {
		c.lose(at, err)
		return
	}
	c.note(at, strict...)
	if id.name == "" {
		c.lose(at, errors.New("metadata.name: missing"))
		return
	}
	obj.SetNamespace(id.namespace)
	obj.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(versions(kind)[0], kind))
	setDefaults(obj)
	c.manifests = append(c.manifests, manifest{identity: id, object: obj, place: at})
}

// identify reads the identity of an object that may otherwise be undecodable.
func identify(kind string, data []byte) identity {
	var partial struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	// What is wrong with the metadata is told by the decoding of the whole object.
	_ = kjson.UnmarshalCaseSensitivePreserveInts(data, &partial)
	id := identity{kind: kind, name: partial.Metadata.Name}
	if kind == "Service" || kind == "EndpointSlice" {
		id.namespace = partial.Metadata.Namespace
		if id.namespace == "" {
			id.namespace = metav1.NamespaceDefault
		}
	}
	return id
}

// String prints "Service default/web", "Node n1", and the kind alone without a name.
func (id identity) String() string {
	switch {
	case id.name == "":
		return id.kind
	case id.namespace == "":
		return id.kind + " " + id.name
	}
	return id.kind + " " + id.namespace + "/" + id.name
}

// versions returns the API versions in which a kind is understood, nil for a kind that is of no use.
// The objects are delivered in the first; the others have its shape.
func versions(kind string) []string {
	switch kind {
	case "Service", "Node":
		return []string{"v1"}
	case "EndpointSlice":
		return []string{"discovery.k8s.io/v1"}
	case "ServiceCIDR":
		return []string{"networking.k8s.io/v1", "networking.k8s.io/v1beta1"}
	}
	return nil
}

// group returns the API group of an apiVersion, empty for the core group.
func group(apiVersion string) string {
	before, _, found := strings.Cut(apiVersion, "/")
	if !found {
		return ""
	}
	return before
}

// decodeKind decodes an object of one of the four kinds. Unknown and duplicate fields are strict errors, the object is good
// without them: an API server may be newer than this program. Any other error names the field.
func decodeKind(kind string, data []byte) (obj object, strict []error, err error) {
	switch kind {
	case "Service":
		return decodeAs[corev1.Service](data)
	case "EndpointSlice":
		return decodeAs[discoveryv1.EndpointSlice](data)
	case "Node":
		return decodeAs[corev1.Node](data)
	case "ServiceCIDR":
		return decodeAs[networkingv1.ServiceCIDR](data)
	}
	return nil, nil, fmt.Errorf("kind: %s is not known", kind)
}

func decodeAs[T any, P interface {
	*T
	object
}](data []byte) (object, []error, error) {
	obj := P(new(T))
	strict, err := kjson.UnmarshalStrict(data, obj)
	if err != nil {
		return nil, nil, fieldError[T](data, err)
	}
	return obj, strict, nil
}
