package source

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unique"

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
	Marshal() ([]byte, error)                 // protobuf
	Unmarshal([]byte) error
}

// identity distinguishes objects.
type identity struct {
	kind string
	cache.ObjectName
}

// String returns "Service default/web" or "Node n1".
func (id identity) String() string { return strings.TrimSpace(id.kind + " " + id.ObjectName.String()) }

// object returns an object with this identity and no content.
func (id identity) object() object {
	var obj object
	switch id.kind {
	case "Service":
		obj = &corev1.Service{}
	case "EndpointSlice":
		obj = &discoveryv1.EndpointSlice{}
	case "Node":
		obj = &corev1.Node{}
	default:
		obj = &networkingv1.ServiceCIDR{}
	}
	obj.SetNamespace(id.Namespace)
	obj.SetName(id.Name)
	return obj
}

// place is where an object is, for messages.
type place struct {
	file     string
	document int
	items    string // in the document, ", item 3"
}

func (p place) String() string { return fmt.Sprintf("%s: document %d%s", p.file, p.document, p.items) }

// item returns the place of an item, counted from 0, of the List at p.
func (p place) item(i int) place {
	p.items += fmt.Sprintf(", item %d", i+1)
	return p
}

// reading passes on the objects in files. It decodes every document, and every item of a List, separately, so
// that an error in one does not affect the others, and so that there are few of them in memory at a time.
type reading struct {
	found    func(id identity, obj object, file string) // in the order of files and documents
	problems []error
	partial  map[string]bool // files with objects that could not be decoded
	retry    bool            // a file could not be read, which may change without an event

	scheme    *runtime.Scheme
	decoder   runtime.Decoder
	places    map[identity]place // of the objects that were found
	ignored   Ignored
	file      string // that is being decoded
	documents int    // in file so far
}

func newReading(found func(id identity, obj object, file string)) *reading {
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
		found: found, partial: map[string]bool{}, places: map[identity]place{}, ignored: Ignored{}, scheme: scheme,
		decoder: serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme, scheme, strict),
	}
}

// note records problems that do not prevent the use of an object.
func (r *reading) note(place fmt.Stringer, errs ...error) {
	for _, err := range errs {
		r.problems = append(r.problems, fmt.Errorf("%s: %w", place, err))
	}
}

// lose records a problem that prevents the use of one or more objects.
func (r *reading) lose(place fmt.Stringer, err error) {
	r.note(place, err)
	r.partial[r.file] = true
}

// place returns the place of the next document.
func (r *reading) place() place {
	r.documents++
	return place{file: r.file, document: r.documents}
}

// decode decodes a file. It splits the file before parsing, because a parser stops at the first error. The
// YAMLReader of apimachinery does not split at the document marker "...": the objects after it would be lost
// silently.
func (r *reading) decode(file string, content io.Reader) error {
	r.file, r.documents = file, 0
	reader := bufio.NewReader(content)
	if begin, _ := reader.Peek(3); string(begin) == "\ufeff" {
		_, _ = reader.Discard(3)
	}
	d := document{}
	for lines, begins := 0, true; ; {
		line, err := reader.ReadSlice('\n')
		marker := begins && (bytes.HasPrefix(line, []byte("---")) || bytes.HasPrefix(line, []byte("...")))
		if marker && (len(line) == 3 || strings.ContainsRune(space, rune(line[3]))) {
			r.document(d)
			d = document{d.text[:0], lines}
			line = line[3:] // the rest of the line is part of the next document
		}
		d.text = append(d.text, line...)
		if begins = err == nil; begins {
			lines++
		}
		switch {
		case errors.Is(err, io.EOF):
			r.document(d)
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// document is a part of a file.
type document struct {
	text  []byte
	lines int // of the file before it
}

const space = " \t\r\n"

// document decodes a document: YAML, or JSON objects one after another. Errors contain the line in the file.
func (r *reading) document(d document) {
	content := bytes.TrimLeft(d.text, space)
	for len(content) > 0 && (content[0] == '#' || content[0] == '%') { // a comment or a directive
		_, content, _ = bytes.Cut(content, []byte("\n"))
		content = bytes.TrimLeft(content, space)
	}
	switch {
	case len(content) == 0:
	case content[0] == '{': // the YAML parser would stop silently after the first object
		r.json(d, len(d.text)-len(content))
	default:
		r.yaml(d)
	}
}

func (r *reading) json(d document, start int) {
	decoder := json.NewDecoder(bytes.NewReader(d.text[start:]))
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return
		}
		text := d.text
		if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
			text = text[:min(start+int(syntax.Offset), len(text))]
		}
		if err != nil {
			r.lose(r.place(), fmt.Errorf("json: line %d: %w", 1+d.lines+bytes.Count(text, []byte("\n")), err))
			return
		}
		r.value(r.place(), value, schema.GroupVersionKind{}, 0)
	}
}

func (r *reading) yaml(d document) {
	place := r.place()
	value, err := yaml.YAMLToJSONStrict(d.text)
	if err != nil {
		// Parse again, with the lines before the document empty, so that errors contain the line in the file.
		text := append(bytes.Repeat([]byte("\n"), d.lines), d.text...)
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
func (r *reading) value(place place, data []byte, implied schema.GroupVersionKind, depth int) {
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
	at := objectPlace{place, id}
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
		r.add(at, obj)
	case *metav1.List:
		if gvk.Kind == "List" { // of objects of any kind
			*gvk = schema.GroupVersionKind{}
		}
		gvk.Kind = strings.TrimSuffix(gvk.Kind, "List")
		for i, item := range obj.Items {
			r.value(place.item(i), item.Raw, *gvk, depth+1)
		}
	}
}

// objectPlace is the place of an object that may have a name.
type objectPlace struct {
	place
	id identity
}

func (p objectPlace) String() string {
	return strings.TrimSuffix(fmt.Sprintf("%s (%s)", p.place, p.id), " ()")
}

// identify returns the identity of an object, even if the object cannot be decoded. There are few kinds and
// namespaces, each once in memory.
func identify(kind string, data []byte) identity {
	var partial struct {
		Metadata struct {
			Namespace string `json:"namespace"`
			Name      string `json:"name"`
		} `json:"metadata"`
	}
	_ = utiljson.Unmarshal(data, &partial) // value reports the error
	id := identity{unique.Make(kind).Value(), cache.ObjectName{Name: partial.Metadata.Name}}
	if id.Name != "" && (kind == "Service" || kind == "EndpointSlice") {
		id.Namespace = unique.Make(cmp.Or(partial.Metadata.Namespace, metav1.NamespaceDefault)).Value()
	}
	return id
}

// add passes an object on, unless there was one with the same identity.
func (r *reading) add(at objectPlace, obj object) {
	first, duplicate := r.places[at.id]
	switch {
	case at.id.Name == "":
		r.lose(at, errors.New("metadata.name is missing"))
	case duplicate:
		r.note(at, fmt.Errorf("ignored, it is already in %s", objectPlace{first, at.id}))
	default:
		obj.SetNamespace(at.id.Namespace)
		r.places[at.id] = at.place
		r.found(at.id, obj, r.file)
	}
}
