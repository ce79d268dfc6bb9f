package source

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// problemCase is a file that ends with a good document, and what decoding it gives.
type problemCase struct {
	name, text string
	objects    []string // before the last one
	problems   []string // without the name of the file
	complete   bool     // no object is lost
}

const (
	badHead     = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	badHeadJSON = `"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}`
	goodNode    = "---\napiVersion: v1\nkind: Node\nmetadata: {name: good}\n"

	// What precedes the problems of the Service.
	atWeb = "document 1 (Service default/web): "
	// What encoding/json calls a value of the wrong type.
	wrong = "json: cannot unmarshal "
)

func TestDecodeProblems(t *testing.T) {
	for _, test := range slices.Concat(fieldCases(), documentCases(), listCases()) {
		t.Run(test.name, func(t *testing.T) {
			r := read(test.text + "---\napiVersion: v1\nkind: Node\nmetadata: {name: last}\n")
			if diff := cmp.Diff(append(test.objects, "Node last"), r.names()); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			for i := range test.problems {
				test.problems[i] = "x.yaml: " + test.problems[i]
			}
			if diff := cmp.Diff(test.problems, messages(r.problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if r.partial["x.yaml"] == test.complete {
				t.Errorf("partial = %v", r.partial)
			}
		})
	}
}

func fieldCases() []problemCase {
	isWeb := []string{"Service default/web"}
	return []problemCase{{
		name: "wrong type", text: badHead + "spec: {ports: [{port: 80}, {port: abc}]}\n",
		problems: []string{atWeb + wrong +
			"string into Go struct field ServicePort.spec.ports.port of type int32"},
	}, {
		name: "number too large", text: badHead + "spec: {ports: [{port: 99999999999}]}\n",
		problems: []string{atWeb + wrong +
			"number 99999999999 into Go struct field ServicePort.spec.ports.port of type int32"},
	}, {
		name: "number for string",
		text: "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a/b: 5}}\n",
		problems: []string{atWeb + wrong +
			"number into Go struct field ObjectMeta.metadata.labels of type string"},
	}, {
		name: "object for list", text: badHead + "spec: {ports: {port: 80}}\n",
		problems: []string{atWeb + wrong +
			"object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort"},
	}, {
		name: "list for object", text: badHead + "spec: []\n",
		problems: []string{atWeb + wrong + "array into Go struct field Service.spec of type v1.ServiceSpec"},
	}, {
		name: "bad time",
		text: "apiVersion: v1\nkind: Service\nmetadata: {name: web, creationTimestamp: noon}\n",
		problems: []string{atWeb +
			`parsing time "noon" as "2006-01-02T15:04:05Z07:00": cannot parse "noon" as "2006"`},
	}, {
		name: "unknown fields", text: badHead + "spec: {ports: [{port: 80, prot: TCP}], Type: NodePort}\n",
		objects: isWeb, complete: true,
		problems: []string{atWeb + `unknown field "spec.Type"`, atWeb + `unknown field "spec.ports[0].prot"`},
	}, {
		name: "duplicate key in YAML", text: "\n" + badHead + "spec:\n  type: NodePort\n  type: ClusterIP\n",
		objects: isWeb, complete: true,
		problems: []string{`document 1: yaml: unmarshal errors: line 7: key "type" already set in map`},
	}, {
		name:    "duplicate key in JSON",
		text:    "{" + badHeadJSON + `, "spec": {"type": "NodePort", "type": "ClusterIP"}}` + "\n",
		objects: isWeb, complete: true,
		problems: []string{atWeb + `duplicate field "spec.type"`},
	}, {
		name: "first of two values wrong",
		text: "{" + badHeadJSON + `, "spec": {"type": 5, "type": "NodePort"}}` + "\n",
		problems: []string{atWeb + wrong +
			"number into Go struct field ServiceSpec.spec.type of type v1.ServiceType"},
	}}
}

func documentCases() []problemCase {
	isGood := []string{"Node good"}
	return []problemCase{{
		name: "YAML syntax", text: goodNode + "---\na: [\n", objects: isGood,
		problems: []string{"document 2: yaml: line 6: did not find expected node content"},
	}, {
		name: "JSON syntax", text: goodNode + "---\n\n{\"a\": 1,\n}\n", objects: isGood,
		problems: []string{"document 2: json: line 8: " +
			"invalid character '}' looking for beginning of object key string"},
	}, {
		name: "JSON cut short", text: "{\"a\":\n",
		problems: []string{"document 1: json: line 2: unexpected EOF"},
	}, {
		name:     "text after JSON",
		text:     `{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}} x` + "\n",
		objects:  []string{"Node a"},
		problems: []string{"document 2: json: line 1: invalid character 'x' looking for beginning of value"},
	}, {
		name: "no name", text: "apiVersion: v1\nkind: Service\nmetadata: {generateName: web-}\n",
		problems: []string{"document 1 (Service): metadata.name is missing"},
	}, {
		name: "no kind", text: "apiVersion: v1\n", problems: []string{"document 1: kind is missing"},
	}, {
		name: "no version", text: "kind: Service\n",
		problems: []string{"document 1 (Service): apiVersion is missing"},
	}, {
		name: "kind of wrong type", text: "apiVersion: v1\nkind: {a: b}\n",
		problems: []string{"document 1: couldn't get version/kind; json parse error: " + wrong +
			"object into Go struct field .kind of type string"},
	}, {
		name: "list", text: "- a\n", problems: []string{"document 1: not an object"},
	}, {
		name: "words", text: "hello world\n", problems: []string{"document 1: not an object"},
	}, {
		name: "null", text: "null\n", problems: []string{"document 1: not an object"},
	}, {
		name: "unsupported version", text: "apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSliceList\n",
		problems: []string{"document 1 (EndpointSliceList): " +
			"apiVersion discovery.k8s.io/v1beta1 is not supported, use discovery.k8s.io/v1"},
	}}
}

func listCases() []problemCase {
	return []problemCase{{
		name: "items", text: goodNode + "---\napiVersion: v1\nkind: List\nitem: []\nitems:\n- null\n" +
			"- {apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: 5}\n" +
			"- {apiVersion: v1, kind: Node, metadata: {name: b}}\n",
		objects: []string{"Node good", "Node b"},
		problems: []string{`document 2 (List): unknown field "item"`,
			"document 2, item 1: not an object",
			"document 2, item 2 (Service x/a): " + wrong +
				"number into Go struct field Service.spec of type v1.ServiceSpec"},
	}, {
		name: "items of a list in a list", text: "apiVersion: v1\nkind: List\n" +
			"items: [{apiVersion: v1, kind: NodeList, items: [{metadata: {name: a}}, {metadata: {}}]}]\n",
		objects:  []string{"Node a"},
		problems: []string{"document 1, item 1, item 2 (Node): metadata.name is missing"},
	}, {
		name:     "item without version",
		text:     "apiVersion: v1\nkind: List\nitems: [{kind: Node, metadata: {name: a}}]\n",
		problems: []string{"document 1, item 1 (Node a): apiVersion is missing"},
	}, {
		name: "items of wrong type", text: "apiVersion: v1\nkind: List\nitems: 5\n",
		problems: []string{"document 1 (List): " + wrong +
			"number into Go struct field List.items of type []runtime.RawExtension"},
	}}
}

func TestDecodeNesting(t *testing.T) {
	text := strings.Repeat(`{"apiVersion":"v1","kind":"List","items":[`, 1000) + strings.Repeat("]}", 1000)
	_, problems := decoded(text)
	want := []string{"x.yaml: document 1" + strings.Repeat(", item 1", 5) + ": in more than 4 nested lists"}
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
	want := "ignored objects that are not Services, EndpointSlices, Nodes or ServiceCIDRs: " +
		"[Deployment.apps:1 Pod:2 PodList:1 Service.serving.knative.dev:1]"
	if diff := cmp.Diff(want, r.ignored.Error()); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
}
