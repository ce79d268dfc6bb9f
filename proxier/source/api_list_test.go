package source

import (
	"bufio"
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// TestListProtobuf reads a list as an API server encodes it, and every beginning of it. What is cut off must
// be an error: an empty list would delete all Services.
func TestListProtobuf(t *testing.T) {
	list := &corev1.ServiceList{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceList"},
		ListMeta: metav1.ListMeta{ResourceVersion: "7", Continue: "more"},
		Items:    []corev1.Service{*apiService("a", "1"), *apiService("b", "2")},
	}
	data := encodeProtobuf(t, list)

	got, received, err := readServices(data)
	must(t, err)
	if diff := cmp.Diff(list.Items, received); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(list.ListMeta, got.ListMeta); diff != "" || len(got.Items) != 2 {
		t.Errorf("%d items, metadata (-want +got):\n%s", len(got.Items), diff)
	}
	for i := range len(data) - len(protobufTail(t, data)) {
		if got, _, err := readServices(data[:i]); err == nil {
			t.Errorf("%d of %d bytes are a list of %d objects", i, len(data), len(got.Items))
		}
	}
}

// encodeProtobuf returns an answer of an API server, without what all of them begin with.
func encodeProtobuf(t *testing.T, obj runtime.Object) []byte {
	t.Helper()
	types := scheme.Codecs.SupportedMediaTypes()
	info, _ := runtime.SerializerInfoForMediaType(types, runtime.ContentTypeProtobuf)
	var text bytes.Buffer
	must(t, info.Serializer.Encode(obj, &text))
	return bytes.TrimPrefix(text.Bytes(), []byte(protobufMagic))
}

// protobufTail returns what an API server sends behind a list: fields without content.
func protobufTail(t *testing.T, data []byte) []byte {
	t.Helper()
	tail := []byte{0x1a, 0, 0x22, 0} // contentEncoding and contentType
	if !bytes.HasSuffix(data, tail) {
		t.Fatalf("the list ends with %x", data[len(data)-8:])
	}
	return tail
}

func readServices(data []byte) (*metav1.List, []corev1.Service, error) {
	var received []corev1.Service
	list, err := readEnvelope(bufio.NewReader(bytes.NewReader(data)), func() object { return &corev1.Service{} },
		func(obj any) (any, error) {
			received = append(received, *obj.(*corev1.Service))
			return obj, nil
		})
	return list, received, err
}

// TestListKind has a server answer with something else than a list, or with nonsense.
func TestListKind(t *testing.T) {
	status := string(encodeProtobuf(t, &metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Success"}))
	for _, c := range []struct{ data, want string }{
		{status, `received a "Status"`},
		{"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "field 2 has 18446744073709551615 bytes"},
		{"\x12\x02\x10\x01", "unexpected type 0 of field 2"},
	} {
		_, _, err := readServices([]byte(c.data))
		if got := fmt.Sprint(err); got != c.want {
			t.Errorf("error %q, want %q", got, c.want)
		}
	}
}
