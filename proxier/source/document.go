package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// document is one YAML document of a file, or one run of JSON values.
type document struct {
	line int // of the file, 1-based, on which text starts
	text []byte
}

// splitDocuments cuts a file at its document markers ("---" and "..."), before anything is parsed, so that a document
// with an error does not take the others with it. Documents without content, which is to say of blank lines, comments
// and directives, are left out.
func splitDocuments(data []byte) []document {
	var documents []document
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	current := document{line: 1}
	start, line := 0, 0
	for end := 0; end < len(data); {
		begin := end
		if i := bytes.IndexByte(data[begin:], '\n'); i >= 0 {
			end = begin + i + 1
		} else {
			end = len(data)
		}
		line++
		if !isMarker(data[begin:end]) {
			continue
		}
		if current.text = data[start:begin]; current.content() != nil {
			documents = append(documents, current)
		}
		// What follows the marker on its line ("--- # comment", "--- {}") is part of the new document.
		start, current = begin+len("---"), document{line: line}
	}
	if current.text = data[start:]; current.content() != nil {
		documents = append(documents, current)
	}
	return documents
}

// isMarker reports whether a line starts or ends a document: the marker, then nothing or white space.
func isMarker(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("---")) && !bytes.HasPrefix(line, []byte("...")) {
		return false
	}
	return len(line) == 3 || bytes.IndexByte([]byte(" \t\r\n"), line[3]) >= 0
}

// content returns the document from its first line on that is not blank, comment or directive; nil if there is none.
func (d document) content() []byte {
	rest := d.text
	for len(rest) > 0 {
		rest = bytes.TrimLeft(rest, " \t\r\n")
		if len(rest) > 0 && rest[0] != '#' && rest[0] != '%' {
			return rest
		}
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			return nil
		}
		rest = rest[end:]
	}
	return nil
}

// values returns the document as JSON values: one for YAML, one or more for JSON.
//
// A document that starts with "{" is JSON, not YAML in flow style: the YAML parser would stop in silence after the first
// of several values. Duplicate keys of YAML mappings are returned as strict errors, the last one counts, and values are
// good; those of JSON are left to whoever decodes the values. err tells that the document, or the rest of it after
// values, cannot be read. Errors name lines of the file.
func (d document) values() (values [][]byte, strict []error, err error) {
	content := d.content()
	if content[0] == '{' {
		values, err = d.jsonValues(content)
		return values, nil, err
	}
	value, duplicates := yaml.YAMLToJSONStrict(d.text)
	if duplicates == nil {
		return [][]byte{value}, nil, nil
	}
	value, err = yaml.YAMLToJSON(d.text)
	if err != nil {
		return nil, nil, errors.Join(d.yamlErrors(err)...)
	}
	return [][]byte{value}, d.yamlErrors(duplicates), nil
}

func (d document) jsonValues(content []byte) ([][]byte, error) {
	var values [][]byte
	decoder := json.NewDecoder(bytes.NewReader(content))
	for {
		var value json.RawMessage
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return values, nil
		}
		if err != nil {
			at := len(content)
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				at = min(int(syntax.Offset), at)
			}
			before := len(d.text) - len(content) + at
			return values, fmt.Errorf("line %d: not JSON: %w", d.line+bytes.Count(d.text[:before], []byte("\n")), err)
		}
		values = append(values, value)
	}
}

// yamlErrors takes apart what the YAML parser says, one error for each line of it, and turns lines of the document into
// lines of the file.
func (d document) yamlErrors(err error) []error {
	var errs []error
	for message := range strings.Lines(err.Error()) {
		message = strings.TrimPrefix(strings.TrimSpace(message), "yaml: ")
		if message == "unmarshal errors:" {
			continue
		}
		if rest, ok := strings.CutPrefix(message, "line "); ok {
			number, what, _ := strings.Cut(rest, ": ")
			if n, err := strconv.Atoi(number); err == nil {
				message = fmt.Sprintf("line %d: %s", d.line+n-1, what)
			}
		}
		errs = append(errs, errors.New(message))
	}
	return errs
}
