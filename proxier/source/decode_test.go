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

// readFile is a reading with what it found.
type readFile struct {
	*reading
	manifests []manifest
}

// manifest is an object that was found.
type manifest struct {
	identity
	object object
}

// read decodes the file x.yaml with this content.
func read(text string) *readFile {
	r := &readFile{}
	r.reading = newReading(func(id identity, obj object, _ string) {
		r.manifests = append(r.manifests, manifest{id, obj})
	})
	if err := r.decode("x.yaml", strings.NewReader(text)); err != nil {
		panic(err) // a string can be read
	}
	return r
}

// names returns the identities of the objects.
func (r *readFile) names() []string {
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

// wholeCase is a file with one object.
type wholeCase struct {
	name, text string
	want       runtime.Object
}

func serviceCase() wholeCase {
	return wholeCase{
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
				Ports: []corev1.ServicePort{
					{Name: "http", Port: 80, Protocol: "UDP", TargetPort: intstr.FromString("web")},
				},
				SessionAffinity: "None", Type: "ClusterIP",
			},
		},
	}
}

func TestDecodeWhole(t *testing.T) {
	for _, test := range []wholeCase{serviceCase(), {
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
		text: "apiVersion: networking.k8s.io/v1beta1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n" +
			"spec: {cidrs: [10.96.0.0/12]}\n",
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
	const list, jsonList = "apiVersion: v1\nkind: List\n",
		`{"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": [`
	a, ab := []string{"a"}, []string{"a", "b"}
	for _, test := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"comments", "# nothing\n---\n# here\n\n---\n", nil},
		{"documents",
			"---\n" + service("a") + "--- # second\n" + service("b") + "...\n" + service("c") + "---",
			[]string{"a", "b", "c"}},
		{"no end of line", service("a") + "---\n" + strings.TrimSpace(service("b")), ab},
		{"Windows lines and byte order mark",
			"\ufeff" + strings.ReplaceAll(service("a")+"---\n"+service("b"), "\n", "\r\n"), ab},
		{"directive", "%YAML 1.1\n---\n" + service("a"), a},
		{"dashes in a value", service("a, annotations: {x: '---x'}"), a},
		{"JSON", asJSON("a"), a},
		{"JSON stream", asJSON("a") + "\n" + asJSON("b"), ab},
		{"JSON stream after a comment", "# c\n" + asJSON("a") + asJSON("b"), ab},
		{"JSON documents", "# c\n" + asJSON("a") + "\n--- " + asJSON("b"), ab},
		{"JSON list", jsonList + asJSON("a") + "," + asJSON("b") + "]}", ab},
		{"list", list + "items:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n" +
			"- {apiVersion: v1, kind: Service, metadata: {name: b}}\n", ab},
		{"list in list",
			list + "items: [{apiVersion: v1, kind: ServiceList, items: [{metadata: {name: a}}]}]", a},
		{"empty list", list + "items: []\n", nil},
		{"service list", "apiVersion: v1\nkind: ServiceList\nmetadata: {resourceVersion: '1'}\n" +
			"items:\n- metadata: {name: a}\n", a},
	} {
		t.Run(test.name, func(t *testing.T) {
			names, problems := decoded(test.text)
			var want []string
			for _, name := range test.want {
				want = append(want, "Service default/"+name)
			}
			if diff := cmp.Diff(want, names); diff != "" {
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
		text := fmt.Sprintf("apiVersion: %s\nkind: %sList\nitems: [{metadata: {name: a}}]", apiVersion, kind)
		names, problems := decoded(text)
		if diff := cmp.Diff([]string{want}, names); diff != "" || problems != nil {
			t.Errorf("%s %sList: problems %q, objects (-want +got):\n%s", apiVersion, kind, problems, diff)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"", "---\n---\n", "a: [", "{", "{}", "null", "- a", "a: &x [*x]", "<<: 1", "? [a]\n: b", "a: .nan",
		"!!binary x", "\x00", "%\n---\n",
		badHead + "spec: {clusterIPs: [], ports: [{port: abc}, null], sessionAffinity: ClientIP}\n",
		badHead + "spec: {type: NodePort, type: ClusterIP}\n...\n{\"a\": 1} {\"b\"",
		"apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: Node, metadata: {name: n}}, null, 5, " +
			"{apiVersion: v1, kind: Pod}]",
		`{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
			"items": [{"metadata": {"name": "a"}, "ports": [{}]}]}`,
		`{"apiVersion": "networking.k8s.io/v1beta1", "kind": "ServiceCIDR",
			"metadata": {"name": "a", "creationTimestamp": 5}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, again := read(string(data)), read(string(data))
		if diff := cmp.Diff(messages(r.problems), messages(again.problems)); diff != "" {
			t.Errorf("problems differ (-first +second):\n%s", diff)
		}
		for _, m := range r.manifests {
			if m.Name == "" || m.object.GetName() != m.Name || m.object.GetNamespace() != m.Namespace {
				t.Errorf("%s is %s/%s", m.identity, m.object.GetNamespace(), m.object.GetName())
			}
		}
		if r.partial["x.yaml"] && len(r.problems) == 0 {
			t.Error("an object is lost without a problem")
		}
	})
}
