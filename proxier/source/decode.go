package source

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"
)

// Ignored is the problem that there are objects of kinds which the proxy does not use: their number by kind
// and API group. It is for information, because no object that the proxy needs is missing.
type Ignored map[string]int

func (i Ignored) Error() string {
	kinds := strings.TrimPrefix(fmt.Sprint(map[string]int(i)), "map") // fmt sorts them
	return "ignored objects that are not Services, EndpointSlices, Nodes or ServiceCIDRs: " + kinds
}

// maxDepth is how deep Lists may be nested; kubectl prints one level.
const maxDepth = 4

// object is a Service, an EndpointSlice, a Node or a ServiceCIDR.
type object interface {
	runtime.Object
	metav1.Object
	Size() int                                // as protobuf
	MarshalToSizedBuffer([]byte) (int, error) // with the last Size bytes of the buffer
}

// identity distinguishes objects.
type identity struct {
	kind string
	cache.ObjectName
}

// String returns "Service default/web" or "Node n1".
func (id identity) String() string { return strings.TrimSpace(id.kind + " " + id.ObjectName.String()) }

// manifest is an object and the file that contains it.
type manifest struct {
	identity
	object object
	file   string
}

// reading collects the objects in files. It decodes every document, and every item of a List, separately, so
// that an error in one does not affect the others.
type reading struct {
	manifests []manifest // in the order of files and documents
	problems  []error
	partial   map[string]bool // files with objects that could not be decoded
	retry     bool            // a file could not be read, which may change without an event

	scheme    *runtime.Scheme
	decoder   runtime.Decoder
	places    map[identity]string // of manifests, for messages
	ignored   Ignored
	file      string // that is being decoded
	documents int    // in file so far
}

func newReading() *reading {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Service{}, &corev1.Node{})
	scheme.AddKnownTypes(discoveryv1.SchemeGroupVersion, &discoveryv1.EndpointSlice{})
	scheme.AddKnownTypes(networkingv1.SchemeGroupVersion, &networkingv1.ServiceCIDR{})
	// A ServiceCIDR of v1beta1 has the same fields.
	beta := schema.GroupVersion{Group: networkingv1.GroupName, Version: "v1beta1"}
	scheme.AddKnownTypes(beta, &networkingv1.ServiceCIDR{})
	// A metav1.List leaves its items encoded.
	for _, gvk := range slices.Collect(maps.Keys(scheme.AllKnownTypes())) {
		scheme.AddKnownTypeWithName(gvk.GroupVersion().WithKind(gvk.Kind+"List"), &metav1.List{})
	}
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &metav1.List{})
	strict := serializer.SerializerOptions{Strict: true}
	return &reading{
		partial: map[string]bool{}, places: map[identity]string{}, ignored: Ignored{}, scheme: scheme,
		decoder: serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, strict),
	}
}

// note records problems that do not prevent the use of an object.
func (r *reading) note(place string, errs ...error) {
	for _, err := range errs {
		r.problems = append(r.problems, fmt.Errorf("%s: %w", place, err))
	}
}

// lose records a problem that prevents the use of one or more objects.
func (r *reading) lose(place string, err error) {
	r.note(place, err)
	r.partial[r.file] = true
}

// place returns the place of the next document, for messages.
func (r *reading) place() string {
	r.documents++
	return fmt.Sprintf("%s: document %d", r.file, r.documents)
}

// decode decodes a file. It splits the file before parsing, because a parser stops at the first error. The
// YAMLReader of apimachinery does not split at the document marker "...": the objects after it would be lost
// silently.
func (r *reading) decode(file string, data []byte) {
	r.file, r.documents = file, 0
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	start, end := 0, 0
	for line := range bytes.Lines(data) {
		marker := bytes.HasPrefix(line, []byte("---")) || bytes.HasPrefix(line, []byte("..."))
		if marker && (len(line) == 3 || strings.ContainsRune(space, rune(line[3]))) {
			r.document(data[:end], start)
			start = end + 3 // the rest of the line is part of the next document
		}
		end += len(line)
	}
	r.document(data, start)
}

const space = " \t\r\n"

// document decodes a document, which is data from start on: YAML, or JSON objects one after another. Errors
// contain the line in data.
func (r *reading) document(data []byte, start int) {
	content := bytes.TrimLeft(data[start:], space)
	for len(content) > 0 && (content[0] == '#' || content[0] == '%') { // a comment or a directive
		_, content, _ = bytes.Cut(content, []byte("\n"))
		content = bytes.TrimLeft(content, space)
	}
	switch {
	case len(content) == 0:
	case content[0] == '{': // the YAML parser would stop silently after the first object
		r.json(data, len(data)-len(content))
	default:
		r.yaml(data, start)
	}
}

func (r *reading) json(data []byte, start int) {
	decoder := json.NewDecoder(bytes.NewReader(data[start:]))
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return
		}
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			data = data[:min(start+int(syntax.Offset), len(data))]
		}
		if err != nil {
			r.lose(r.place(), fmt.Errorf("json: line %d: %w", 1+bytes.Count(data, []byte("\n")), err))
			return
		}
		r.value(r.place(), value, schema.GroupVersionKind{}, 0)
	}
}

func (r *reading) yaml(data []byte, start int) {
	place := r.place()
	value, err := yaml.YAMLToJSONStrict(data[start:])
	if err != nil {
		// Parse again, with the lines before the document empty, so that errors contain the line in data.
		text := bytes.Repeat([]byte("\n"), bytes.Count(data[:start], []byte("\n")))
		text = append(text, data[start:]...)
		_, duplicate := yaml.YAMLToJSONStrict(text)
		if value, err = yaml.YAMLToJSON(text); err != nil {
			r.lose(place, err)
			return
		}
		r.note(place, errors.New(strings.Join(strings.Fields(duplicate.Error()), " ")))
	}
	r.value(place, value, schema.GroupVersionKind{}, 0)
}

// value decodes an object or a List. It may lack the apiVersion and kind that the List around it implies.
func (r *reading) value(place string, data []byte, implied schema.GroupVersionKind, depth int) {
	if !bytes.HasPrefix(data, []byte("{")) {
		r.lose(place, errors.New("not an object"))
		return
	}
	if depth > maxDepth {
		r.lose(place, fmt.Errorf("in more than %d nested lists", maxDepth))
		return
	}
	decoded, gvk, err := r.decoder.Decode(data, &implied, nil)
	if gvk == nil {
		r.lose(place, err)
		return
	}
	id := identify(gvk.Kind, data)
	at := strings.TrimSuffix(fmt.Sprintf("%s (%s)", place, id), " ()")
	strict, isStrict := runtime.AsStrictDecodingError(err)
	switch {
	case isStrict: // the object is good without its unknown and duplicate fields
		r.note(at, strict.Errors()...)
	case runtime.IsMissingKind(err): // err would print the whole object
		r.lose(at, errors.New("kind is missing"))
	case runtime.IsMissingVersion(err):
		r.lose(at, errors.New("apiVersion is missing"))
	case runtime.IsNotRegisteredError(err):
		if versions := r.scheme.VersionsForGroupKind(gvk.GroupKind()); len(versions) > 0 {
			r.lose(at, fmt.Errorf("apiVersion %s is not supported, use %s", gvk.GroupVersion(), versions[0]))
		} else {
			r.ignored[gvk.GroupKind().String()]++
		}
	case err != nil:
		r.lose(at, err)
	}
	switch obj := decoded.(type) {
	case object:
		gvk.Version = "v1"
		obj.GetObjectKind().SetGroupVersionKind(*gvk)
		r.add(at, manifest{id, obj, r.file})
	case *metav1.List:
		if gvk.Kind == "List" { // of objects of any kind
			*gvk = schema.GroupVersionKind{}
		}
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
		for i, item := range obj.Items {
			r.value(fmt.Sprintf("%s, item %d", place, i+1), item.Raw, *gvk, depth+1)
		}
	}
}

// identify returns the identity of an object, even if the object cannot be decoded.
func identify(kind string, data []byte) identity {
	var partial struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	_ = utiljson.Unmarshal(data, &partial) // value reports the error
	id := identity{kind, cache.ObjectName{Name: partial.Metadata.Name}}
	if id.Name != "" && (kind == "Service" || kind == "EndpointSlice") {
		id.Namespace = cmp.Or(partial.Metadata.Namespace, metav1.NamespaceDefault)
	}
	return id
}

// add adds an object, unless there is one with the same identity.
func (r *reading) add(at string, m manifest) {
	first, duplicate := r.places[m.identity]
	switch {
	case m.Name == "":
		r.lose(at, errors.New("metadata.name is missing"))
	case duplicate:
		r.note(at, fmt.Errorf("ignored, it is already in %s", first))
	default:
		m.object.SetNamespace(m.Namespace)
		r.places[m.identity] = at
		r.manifests = append(r.manifests, m)
	}
}
