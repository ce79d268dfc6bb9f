package support

import (
	"bytes"
	"io"
	"regexp"
)

// removed stands for what was removed.
const removed = "<removed>"

// secrets removes what looks like a credential from each line. Lines end with a line feed; Close writes the
// last one without it.
type secrets struct {
	to      io.Writer
	line    []byte
	pattern *regexp.Regexp
	inKey   bool // between the lines that begin and end a private key
}

// newSecrets returns secrets for: a password in a URL, a bearer token, a JSON web token (RFC 7519), a private
// key (RFC 7468), and base64 of "-----BEGIN ", as kubeconfigs have it.
func newSecrets(to io.Writer) *secrets {
	return &secrets{to: to, pattern: regexp.MustCompile(`://[^/\s@"]+@|earer [^\s"\\]+|` +
		`eyJ[\w-]+\.[\w-]+\.[\w-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----.*|LS0tLS1CRUdJTi[\w+/=]+`)}
}

// longestLine bounds what is kept of a line until its end.
const longestLine = 1 << 20

func (s *secrets) Write(text []byte) (int, error) {
	for line := range bytes.Lines(text) {
		s.line = append(s.line, line...)
		if line[len(line)-1] == '\n' || len(s.line) > longestLine {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(text), nil
}

func (s *secrets) Close() error { return s.flush() }

func (s *secrets) flush() error {
	line := s.line
	s.line = s.line[:0]
	if s.inKey {
		s.inKey = !bytes.Contains(line, []byte("-----END "))
		return nil
	}
	if !suspicious(line) { // nearly all of them, and a table has a million
		_, err := s.to.Write(line)
		return err
	}
	line = s.pattern.ReplaceAllFunc(line, func(found []byte) []byte {
		switch {
		case bytes.HasPrefix(found, []byte("://")):
			return []byte("://" + removed + "@")
		case bytes.HasPrefix(found, []byte("earer ")):
			return []byte("earer " + removed)
		case bytes.HasPrefix(found, []byte("-----")):
			s.inKey = !bytes.Contains(found, []byte("-----END "))
		}
		return []byte(removed)
	})
	_, err := s.to.Write(line)
	return err
}

// suspicious reports whether the pattern can match in a line.
func suspicious(line []byte) bool {
	for _, part := range []string{"://", "earer ", "eyJ", "-----", "LS0tLS1CRUdJTi"} {
		if bytes.Contains(line, []byte(part)) {
			return true
		}
	}
	return false
}
