package source

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// messages returns the text of each error.
func messages(errs []error) []string {
	var texts []string
	for _, err := range errs {
		texts = append(texts, err.Error())
	}
	return texts
}

// read decodes the file x.yaml with this content.
func read(text string) *reading {
	r := newReading()
	r.decode("x.yaml", []byte(text))
	return r
}

// names returns the identities of the objects.
func (r *reading) names() []string {
	var names []string
	for _, m := range r.manifests {
		names = append(names, m.identity.String())
	}
	return names
}

// decoded returns the identities of the objects in x.yaml with this content, and the problems.
func decoded(text string) (names, problems []string) {
	r := read(text)
	return r.names(), messages(r.problems)
}

func TestDecodeWhole(t *testing.T) {
	for _, test := range []struct {
		name string
		text string
		want runtime.Object
	}{{
		name: "service as kubectl prints it",
		text: `
apiVersion: v1
kind: Service
metadata:
  creationTimestamp: "2024-05-01T10:00:00Z"
  labels: {app.kubernetes.io/name: web}
  name: web
  namespace: shop
  resourceVersion: "17"
  uid: 0c5c
spec:
  clusterIP: 10.96.0.10
  clusterIPs:
  - 10.96.0.10
  internalTrafficPolicy: Local
  ports:
  - name: http
    port: 80
    protocol: UDP
    targetPort: web
  sessionAffinity: None
  type: ClusterIP
status:
  loadBalancer: {}
`,
		want: &corev1.Service{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{
				CreationTimestamp: metav1.Unix(1714557600, 0),
				Labels:            map[string]string{"app.kubernetes.io/name": "web"},
				Name:              "web", Namespace: "shop", ResourceVersion: "17", UID: "0c5c",
			},
			Spec: corev1.ServiceSpec{
				ClusterIP: "10.96.0.10", ClusterIPs: []string{"10.96.0.10"},
				InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyLocal),
				Ports:                 []corev1.ServicePort{{Name: "http", Port: 80, Protocol: "UDP", TargetPort: intstr.FromString("web")}},
				SessionAffinity:       "None", Type: "ClusterIP",
			},
		},
	}, {
		name: "endpoint slice by hand",
		text: `{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "web-1"},
			"addressType": "IPv4", "endpoints": [{"addresses": ["10.244.1.1"]}], "ports": [{"port": 8080}]}`,
		want: &discoveryv1.EndpointSlice{
			TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
			ObjectMeta:  metav1.ObjectMeta{Name: "web-1", Namespace: "default"},
			AddressType: "IPv4",
			Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.1"}}},
			Ports:       []discoveryv1.EndpointPort{{Port: ptr.To[int32](8080)}},
		},
	}, {
		name: "node",
		text: "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24}\n",
		want: &corev1.Node{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
			ObjectMeta: metav1.ObjectMeta{Name: "n1"},
			Spec:       corev1.NodeSpec{PodCIDR: "10.244.1.0/24"},
		},
	}, {
		name: "service CIDR of the beta version",
		text: "apiVersion: networking.k8s.io/v1beta1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\nspec: {cidrs: [10.96.0.0/12]}\n",
		want: &networkingv1.ServiceCIDR{
			TypeMeta:   metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDR"},
			ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"},
			Spec:       networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/12"}},
		},
	}} {
		t.Run(test.name, func(t *testing.T) {
			r := read(test.text)
			if len(r.problems) > 0 || r.partial["x.yaml"] {
				t.Fatalf("partial %v, problems %q", r.partial, r.problems)
			}
			if len(r.manifests) != 1 {
				t.Fatalf("got %d objects", len(r.manifests))
			}
			if diff := cmp.Diff(test.want, runtime.Object(r.manifests[0].object)); diff != "" {
				t.Errorf("object (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeForms(t *testing.T) {
	service := func(name string) string {
		return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\n"
	}
	asJSON := func(name string) string {
		return `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "` + name + `"}}`
	}
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"comments", "# nothing\n---\n# here\n\n---\n", nil},
		{"documents", "---\n" + service("a") + "--- # second\n" + service("b") + "...\n" + service("c") + "---", []string{"a", "b", "c"}},
		{"no end of line", service("a") + "---\n" + strings.TrimSpace(service("b")), []string{"a", "b"}},
		{"windows lines and mark", "\ufeff" + strings.ReplaceAll(service("a")+"---\n"+service("b"), "\n", "\r\n"), []string{"a", "b"}},
		{"directive", "%YAML 1.1\n---\n" + service("a"), []string{"a"}},
		{"dashes in a value", strings.Replace(service("a"), "{name: a}", "{name: a, annotations: {x: '---x'}}", 1), []string{"a"}},
		{"json", asJSON("a"), []string{"a"}},
		{"json stream", asJSON("a") + "\n" + asJSON("b"), []string{"a", "b"}},
		{"json documents", "# c\n" + asJSON("a") + "\n--- " + asJSON("b"), []string{"a", "b"}},
		{"json list", `{"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [` + asJSON("a") + "," + asJSON("b") + "]}", []string{"a", "b"}},
		{"list", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n", []string{"a", "b"}},
		{"list in list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a}}]}]", []string{"a"}},
		{"empty list", "apiVersion: v1\nkind: List\nitems: []\n", nil},
		{"service list", "apiVersion: v1\nkind: ServiceList\nmetadata: {resourceVersion: '1'}\nitems:\n- metadata: {name: a}\n", []string{"a"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			names, problems := decoded(test.text)
			for i, name := range test.want {
				test.want[i] = "Service default/" + name
			}
			if diff := cmp.Diff(test.want, names); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if problems != nil {
				t.Errorf("problems: %q", problems)
			}
		})
	}
}

func TestDecodeTypedLists(t *testing.T) {
	for kind, want := range map[string]string{
		"v1 Service":                            "Service default/a",
		"v1 Node":                               "Node a",
		"discovery.k8s.io/v1 EndpointSlice":     "EndpointSlice default/a",
		"networking.k8s.io/v1 ServiceCIDR":      "ServiceCIDR a",
		"networking.k8s.io/v1beta1 ServiceCIDR": "ServiceCIDR a",
	} {
		apiVersion, kind, _ := strings.Cut(kind, " ")
		names, problems := decoded(fmt.Sprintf("apiVersion: %s\nkind: %sList\nitems: [{metadata: {name: a}}]", apiVersion, kind))
		if diff := cmp.Diff([]string{want}, names); diff != "" || problems != nil {
			t.Errorf("%s %sList: problems %q, objects (-want +got):\n%s", apiVersion, kind, problems, diff)
		}
	}
}

func TestDecodeProblems(t *testing.T) {
	const head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	const good = "---\napiVersion: v1\nkind: Node\nmetadata: {name: good}\n"
	const last = "---\napiVersion: v1\nkind: Node\nmetadata: {name: last}\n"
	for _, test := range []struct {
		name, text string
		objects    []string // before the last one
		problems   []string
		partial    bool
	}{
		{"wrong type", head + "spec: {ports: [{port: 80}, {port: abc}]}\n", nil,
			[]string{"x.yaml: document 1 (Service default/web): json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"}, true},
		{"number too large", head + "spec: {ports: [{port: 99999999999}]}\n", nil,
			[]string{"x.yaml: document 1 (Service default/web): json: cannot unmarshal number 99999999999 into Go struct field ServicePort.spec.ports.port of type int32"}, true},
		{"number for string", "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a/b: 5}}\n", nil,
			[]string{"x.yaml: document 1 (Service default/web): json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"}, true},
		{"object for list", head + "spec: {ports: {port: 80}}\n", nil,
			[]string{"x.yaml: document 1 (Service default/web): json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort"}, true},
		{"list for object", head + "spec: []\n", nil,
			[]string{"x.yaml: document 1 (Service default/web): json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec"}, true},
		{"bad time", "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: noon}\n", nil,
			[]string{`x.yaml: document 1 (Service default/web): parsing time "noon" as "2006-01-02T15:04:05Z07:00": cannot parse "noon" as "2006"`}, true},
		{"unknown fields", head + "spec: {ports: [{port: 80, prot: TCP}], Type: NodePort}\n", []string{"Service default/web"},
			[]string{`x.yaml: document 1 (Service default/web): unknown field "spec.Type"`,
				`x.yaml: document 1 (Service default/web): unknown field "spec.ports[0].prot"`}, false},
		{"duplicate key of yaml", "\n" + head + "spec:\n  type: NodePort\n  type: ClusterIP\n", []string{"Service default/web"},
			[]string{`x.yaml: document 1: yaml: unmarshal errors: line 7: key "type" already set in map`}, false},
		{"duplicate key of json", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": "NodePort", "type": "ClusterIP"}}` + "\n",
			[]string{"Service default/web"}, []string{`x.yaml: document 1 (Service default/web): duplicate field "spec.type"`}, false},
		{"first of two values wrong", `{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"type": 5, "type": "NodePort"}}` + "\n", nil,
			[]string{"x.yaml: document 1 (Service default/web): json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type v1.ServiceType"}, true},
		{"yaml syntax", good + "---\na: [\n", []string{"Node good"},
			[]string{"x.yaml: document 2: yaml: line 6: did not find expected node content"}, true},
		{"json syntax", good + "---\n\n{\"a\": 1,\n}\n", []string{"Node good"},
			[]string{"x.yaml: document 2: json: line 8: invalid character '}' looking for beginning of object key string"}, true},
		{"json cut short", "{\"a\":\n", nil, []string{"x.yaml: document 1: json: line 2: unexpected EOF"}, true},
		{"json, then rubbish", `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}} x` + "\n", []string{"Node a"},
			[]string{"x.yaml: document 2: json: line 1: invalid character 'x' looking for beginning of value"}, true},
		{"no name", "apiVersion: v1\nkind: Service\nmetadata: {generateName: web-}\n", nil,
			[]string{"x.yaml: document 1 (Service): metadata.name is missing"}, true},
		{"no kind", "apiVersion: v1\n", nil, []string{"x.yaml: document 1: kind is missing"}, true},
		{"no version", "kind: Service\n", nil, []string{"x.yaml: document 1 (Service): apiVersion is missing"}, true},
		{"kind of wrong type", "apiVersion: v1\nkind: {a: b}\n", nil, []string{"x.yaml: document 1: couldn't get version/kind; json parse error: json: cannot unmarshal object into Go struct field .kind of type string"}, true},
		{"no object", "- a\n", nil, []string{"x.yaml: document 1: not an object"}, true},
		{"words", "hello world\n", nil, []string{"x.yaml: document 1: not an object"}, true},
		{"null", "null\n", nil, []string{"x.yaml: document 1: not an object"}, true},
		{"version not understood", "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSliceList\n", nil,
			[]string{"x.yaml: document 1 (EndpointSliceList): apiVersion discovery.k8s.io/v1beta1 is not supported, use discovery.k8s.io/v1"}, true},
		{"items", good + "---\napiVersion: v1\nkind: List\nitem: []\nitems:\n- null\n- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: 5}\n" +
			"- {apiVersion: v1, kind: Node, metadata: {name: b}}\n", []string{"Node good", "Node b"},
			[]string{`x.yaml: document 2 (List): unknown field "item"`,
				"x.yaml: document 2, item 1: not an object",
				"x.yaml: document 2, item 2 (Service x/a): json: cannot unmarshal number into Go struct field Service.spec of type v1.ServiceSpec"}, true},
		{"items of a list in a list", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: NodeList, items: [{metadata: {name: a}}, {metadata: {}}]}]\n", []string{"Node a"},
			[]string{"x.yaml: document 1, item 1, item 2 (Node): metadata.name is missing"}, true},
		{"items of wrong type", "apiVersion: v1\nkind: List\nitems: 5\n", nil, []string{"x.yaml: document 1 (List): json: cannot unmarshal number into Go struct field List.items of type []runtime.RawExtension"}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := read(test.text + last)
			if diff := cmp.Diff(append(test.objects, "Node last"), r.names()); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.problems, messages(r.problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if r.partial["x.yaml"] != test.partial {
				t.Errorf("partial = %v", r.partial)
			}
		})
	}
}

func TestDecodeNesting(t *testing.T) {
	text := strings.Repeat(`{"apiVersion":"v1","kind":"List","items":[`, 1000) + strings.Repeat("]}", 1000)
	_, problems := decoded(text)
	want := []string{"x.yaml: document 1, item 1, item 1, item 1, item 1, item 1: in more than 4 nested lists"}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestIgnored(t *testing.T) {
	r := read(`
apiVersion: apps/v1
kind: Deployment
---
apiVersion: serving.knative.dev/v1
kind: Service
---
apiVersion: v1
kind: List
items: [{apiVersion: v1, kind: Pod}, {apiVersion: v1, kind: Pod}, {apiVersion: v1, kind: PodList}]
`)
	if len(r.problems) > 0 || len(r.manifests) > 0 || r.partial["x.yaml"] {
		t.Errorf("partial %v, %d objects, problems %q", r.partial, len(r.manifests), r.problems)
	}
	want := "ignored objects that are not Services, EndpointSlices, Nodes or ServiceCIDRs: [Deployment.apps:1 Pod:2 PodList:1 Service.serving.knative.dev:1]"
	if diff := cmp.Diff(want, r.ignored.Error()); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "---\n---\n", "a: [", "{", "{}", "null", "- a", "a: &x [*x]", "<<: 1", "? [a]\n: b", "a: .nan", "!!binary x", "\x00", "%\n---\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {clusterIPs: [], ports: [{port: abc}, null], sessionAffinity: ClientIP}\n",
		"apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, type: ClusterIP}\n...\n{\"a\": 1} {\"b\"",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: n}}, null, 5, {apiVersion: v1, kind: Pod}]",
		`{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "items": [{"metadata": {"name": "a"}, "ports": [{}]}]}`,
		`{"apiVersion": "networking.k8s.io/v1beta1", "kind": "ServiceCIDR", "metadata": {"name": "a", "creationTimestamp": 5}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, again := read(string(data)), read(string(data))
		if diff := cmp.Diff(messages(r.problems), messages(again.problems)); diff != "" {
			t.Errorf("problems of a second time (-first +second):\n%s", diff)
		}
		for _, m := range r.manifests {
			if m.Name == "" || m.object.GetName() != m.Name || m.object.GetNamespace() != m.Namespace {
				t.Errorf("object %s/%s is known as %s", m.object.GetNamespace(), m.object.GetName(), m.identity)
			}
		}
		if r.partial["x.yaml"] && len(r.problems) == 0 {
			t.Error("something is missing, and no problem says so")
		}
	})
}
