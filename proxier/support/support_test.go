package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestLogKeepsTheLastLines(t *testing.T) {
	var l Log
	for i := range maxLines + 10 {
		fmt.Fprintf(&l, "line %d\n", i)
	}
	var text strings.Builder
	if err := l.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	got := text.String()
	if lines := strings.Count(got, "\n"); lines != maxLines || !strings.HasPrefix(got, "line 10\n") {
		t.Errorf("%d lines from %.20q, want %d from line 10", lines, got, maxLines)
	}
	long := strings.Repeat("x", 2*maxLine) + "\n"
	for range maxLines {
		fmt.Fprint(&l, long)
	}
	if l.size > maxLog || len(l.lines) != maxLog/maxLine {
		t.Errorf("%d long lines of %d bytes, want at most %d bytes", len(l.lines), l.size, maxLog)
	}
}

func TestSecretsAreRemoved(t *testing.T) {
	for in, want := range map[string]string{
		"nothing here":                     "nothing here",
		"get https://u:p4ss@192.0.2.1/api": "get https://<removed>@192.0.2.1/api",
		"see https://192.0.2.1/a and a@b":  "see https://192.0.2.1/a and a@b",
		`"Authorization: Bearer ab.cd" x`:  `"Authorization: Bearer <removed>" x`,
		"token eyJhbGci.eyJpc3M.c2ln end":  "token <removed> end",
		"key-data: LS0tLS1CRUdJTiBSU0E=":   "key-data: <removed>",

		"a\n-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\nb": "a\n<removed>\nb",
		`a -----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----`:             "a <removed>",
	} {
		var got bytes.Buffer
		s := newSecrets(&got)
		for i := range len(in) { // however the writes divide the text
			if _, err := s.Write([]byte(in[i : i+1])); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if got.String() != want {
			t.Errorf("%q became %q, want %q", in, got.String(), want)
		}
	}
}

func TestLimit(t *testing.T) {
	var got bytes.Buffer
	l := &limit{to: &got, max: 10}
	for _, text := range []string{"123456", "7890"} {
		if _, err := io.WriteString(l, text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := io.WriteString(l, "1")
	if err == nil || l.size != 10 || got.Len() != 10 {
		t.Errorf("error %v, %d bytes counted, %d written; want 10 bytes and an error", err, l.size, got.Len())
	}
}

// TestWrite writes a part that fails in the middle, and one behind it.
func TestWrite(t *testing.T) {
	parts := []Part{
		{"half.txt", "a part that fails", func(_ context.Context, w io.Writer) error {
			_, _ = io.WriteString(w, "the first half")
			return errors.New("out of luck")
		}},
		{"whole.txt", "a part that works", func(_ context.Context, w io.Writer) error {
			_, err := io.WriteString(w, "all of it")
			return err
		}},
	}
	var out bytes.Buffer
	if _, err := Write(t.Context(), &out, "dir", parts); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		got[header.Name] = string(text)
	}
	if got["dir/half.txt"] != "the first half" || got["dir/whole.txt"] != "all of it" {
		t.Errorf("half %q, whole %q", got["dir/half.txt"], got["dir/whole.txt"])
	}
	for _, want := range []string{"failed: out of luck", "a part that works"} {
		if !strings.Contains(got["dir/index.txt"], want) {
			t.Errorf("no %q in the index:\n%s", want, got["dir/index.txt"])
		}
	}
}
