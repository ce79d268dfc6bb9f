package source

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// protobufMagic begins an answer in protobuf.
const protobufMagic = "k8s\x00"

// listEach lists, and replaces each object by what the function each returns for it, as soon as it is
// received if the answer is in protobuf. An API server that does not send lists as watch events (before
// Kubernetes 1.32) answers with tens of thousands of objects at once, which would be most of the memory of
// the proxy.
func (r resource) listEach(ctx context.Context, options metav1.ListOptions, new func() object,
	each func(any) (any, error)) (runtime.Object, error) {
	body, err := r.request(options).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	reader := bufio.NewReader(body)
	if begin, _ := reader.Peek(len(protobufMagic)); string(begin) != protobufMagic {
		return r.decode(reader)
	}
	_, _ = reader.Discard(len(protobufMagic))
	list, err := readEnvelope(reader, new, each)
	if err != nil {
		return nil, fmt.Errorf("decode list of %s: %w", r.name, err)
	}
	return list, nil
}

// readEnvelope reads a list in protobuf with its type before it. The numbers of fields here and in readList
// are those of runtime.Unknown and of all lists, in k8s.io/apimachinery and k8s.io/api v0.37.
func readEnvelope(r *bufio.Reader, new func() object, each func(any) (any, error)) (*metav1.List, error) {
	var list *metav1.List
	err := protobufFields(r, func(number, size uint64) error {
		switch number {
		case 1:
			data, kind := make([]byte, size), runtime.TypeMeta{}
			if _, err := io.ReadFull(r, data); err != nil {
				return unexpected(err)
			}
			if err := kind.Unmarshal(data); err != nil || !strings.HasSuffix(kind.Kind, "List") {
				return fmt.Errorf("received a %q", kind.Kind)
			}
			return nil
		case 2:
			list = &metav1.List{}
			raw := &io.LimitedReader{R: r, N: int64(size)}
			err := readList(bufio.NewReader(raw), list, new, each)
			if err == nil && raw.N > 0 {
				err = io.ErrUnexpectedEOF
			}
			return err
		default:
			return skip(r, size)
		}
	})
	if err == nil && list == nil {
		err = io.ErrUnexpectedEOF
	}
	return list, err
}

// readList reads a list in protobuf.
func readList(r *bufio.Reader, list *metav1.List, new func() object, each func(any) (any, error)) error {
	var buf []byte
	return protobufFields(r, func(number, size uint64) error {
		if number > 2 {
			return skip(r, size)
		}
		if uint64(cap(buf)) < size {
			buf = make([]byte, size)
		}
		buf = buf[:size]
		if _, err := io.ReadFull(r, buf); err != nil {
			return unexpected(err)
		}
		if number == 1 {
			return list.ListMeta.Unmarshal(buf)
		}
		obj := new()
		if err := obj.Unmarshal(buf); err != nil {
			return err
		}
		item, err := each(obj)
		if err != nil {
			return err
		}
		list.Items = append(list.Items, runtime.RawExtension{Object: item.(runtime.Object)})
		return nil
	})
}

// protobufFields calls each for the number and size of every field of a message, whose bytes it must read.
// All fields of lists have bytes.
func protobufFields(r *bufio.Reader, each func(number, size uint64) error) error {
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if tag&7 != 2 {
			return fmt.Errorf("unexpected type %d of field %d", tag&7, tag>>3)
		}
		size, err := binary.ReadUvarint(r)
		switch {
		case err != nil:
			return unexpected(err)
		case size > maxAnswer:
			return fmt.Errorf("field %d has %d bytes", tag>>3, size)
		}
		if err := each(tag>>3, size); err != nil {
			return err
		}
	}
}

func skip(r io.Reader, size uint64) error {
	_, err := io.CopyN(io.Discard, r, int64(size))
	return unexpected(err)
}

// decode decodes an answer as a whole.
func (r resource) decode(body io.Reader) (runtime.Object, error) {
	data, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	list, err := runtime.Decode(r.decoder, data)
	if err != nil {
		return nil, fmt.Errorf("decode list of %s: %w", r.name, err)
	}
	return list, nil
}
