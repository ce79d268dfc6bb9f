// Package manifests tests the files in the directory manifests.
//
// The API must accept the overlays under strict decoding, and they must grant exactly the permissions that
// nftproxy uses. The tests render kustomizations with internal/tools/render, so that they check what kubectl
// applies. With the build tag e2e they also use a real API server (server_test.go).
//
// Start reading at TestOverlays.
package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

const root = "../../manifests"

// overlays returns the names of all overlays.
func overlays(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "overlays"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) < 3 {
		t.Fatalf("found only the overlays %q", names)
	}
	return names
}

// render returns the documents of a kustomization.
func render(t *testing.T, dir string) [][]byte {
	t.Helper()
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command("go", "run", "-C", "../tools", "./render", abs)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("render %s: %v\n%s", dir, err, &stderr)
	}
	documents, err := split(out)
	if err != nil {
		t.Fatalf("render %s: %v", dir, err)
	}
	return documents
}

// split returns the documents of a YAML stream.
func split(stream []byte) ([][]byte, error) {
	reader := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(stream)))
	defer reader.Close()
	var documents [][]byte
	for {
		buf := make([]byte, len(stream)+1)
		n, err := reader.Read(buf)
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, err
		}
		documents = append(documents, buf[:n])
	}
}

// decode decodes a document strictly: an unknown field is an error.
func decode(document []byte) (runtime.Object, error) {
	codecs := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict)
	obj, _, err := codecs.UniversalDeserializer().Decode(document, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("decode: %w\n%s", err, document)
	}
	return obj, nil
}

// objects returns the objects of a kustomization by kind. It fails for two objects of one kind.
func objects(t *testing.T, dir string) map[string]runtime.Object {
	t.Helper()
	all := map[string]runtime.Object{}
	for _, document := range render(t, dir) {
		obj, err := decode(document)
		if err != nil {
			t.Fatal(err)
		}
		kind := obj.GetObjectKind().GroupVersionKind().Kind
		if all[kind] != nil {
			t.Fatalf("%s has more than one %s", dir, kind)
		}
		all[kind] = obj
	}
	return all
}

// of returns the object of a type.
func of[T runtime.Object](t *testing.T, all map[string]runtime.Object) T {
	t.Helper()
	for _, obj := range all {
		if found, ok := obj.(T); ok {
			return found
		}
	}
	var none T
	t.Fatalf("no object is a %T", none)
	return none
}
