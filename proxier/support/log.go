package support

import (
	"bytes"
	"io"
	"sync"
)

// Bounds of the lines that a Log keeps, and of the bytes in them.
const (
	maxLines = 1000
	maxLine  = 8 << 10
	maxLog   = 1 << 20
)

// Log keeps the last 1,000 lines that were written to it, and at most 1 MiB of them. It is safe for
// concurrent use.
type Log struct {
	mu    sync.Mutex
	lines [][]byte // the oldest first
	size  int      // of all lines in bytes
}

// Write adds lines. It returns no error.
func (l *Log) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		l.add(bytes.Clone(line[:min(len(line), maxLine)]))
	}
	return len(text), nil
}

func (l *Log) add(line []byte) {
	l.lines, l.size = append(l.lines, line), l.size+len(line)
	n := 0
	for len(l.lines)-n > maxLines || l.size > maxLog {
		l.size -= len(l.lines[n])
		l.lines[n] = nil
		n++
	}
	l.lines = l.lines[n:]
}

// WriteText writes the lines.
func (l *Log) WriteText(w io.Writer) error {
	l.mu.Lock()
	text := append(bytes.Join(l.lines, []byte("\n")), '\n')
	l.mu.Unlock()
	_, err := w.Write(text)
	return err
}
