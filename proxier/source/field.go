package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	kjson "sigs.k8s.io/json"
)

// fieldError says which field keeps data from being decoded as a T, err being what the decoder said.
// The decoder's own message names Go types and no list indices.
func fieldError[T any](data []byte, err error) error {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if decoder.Decode(&value) != nil {
		return err
	}
	path, cause := locate(value, tryAs[T])
	switch {
	case cause == nil: // only together with a duplicate of a key, which is gone in value
		return err
	case path == "":
		return describe(cause)
	}
	return fmt.Errorf("%s: %w", strings.TrimPrefix(path, "."), describe(cause))
}

// tryAs decodes value as a T, by the decoder that decides, and reports its error in the words of encoding/json,
// whose error type is public.
func tryAs[T any](value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	err = kjson.UnmarshalCaseSensitivePreserveInts(data, new(T))
	if err == nil {
		return nil
	}
	if public := json.Unmarshal(data, new(T)); public != nil {
		return public
	}
	return err
}

// locate finds the first value below value that try does not take, and what try says of it; a nil error if it takes
// value. It tries each child with nothing beside it, so that a level costs as much as decoding it once.
func locate(value any, try func(any) error) (path string, err error) {
	if err = try(value); err == nil {
		return "", nil
	}
	switch value := value.(type) {
	case map[string]any:
		if err := try(map[string]any{}); err != nil {
			return "", err // no object is wanted here at all
		}
		for _, key := range slices.Sorted(maps.Keys(value)) {
			alone := func(child any) error { return try(map[string]any{key: child}) }
			if path, err := locate(value[key], alone); err != nil {
				return fieldName(key) + path, err
			}
		}
	case []any:
		if err := try([]any{}); err != nil {
			return "", err
		}
		for i, item := range value {
			alone := func(child any) error { return try([]any{child}) }
			if path, err := locate(item, alone); err != nil {
				return fmt.Sprintf("[%d]%s", i, path), err
			}
		}
	}
	return "", err
}

// fieldName prints one step of a path: ".port", or `["app.kubernetes.io/name"]` for a key that is no plain name.
func fieldName(key string) string {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		return fmt.Sprintf("[%q]", key)
	}
	return "." + key
}

// describe puts a decoder's type error in terms of YAML.
func describe(err error) error {
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &mismatch) {
		return err
	}
	want := mismatch.Type.Kind().String()
	switch mismatch.Type.Kind() {
	case reflect.Struct, reflect.Map:
		want = "object"
	case reflect.Slice, reflect.Array:
		want = "list"
	}
	got := mismatch.Value
	if got == "array" {
		got = "list"
	}
	return fmt.Errorf("want %s, got %s", want, got)
}
