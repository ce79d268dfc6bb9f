package top

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Control sequences: private modes for the other screen, the cursor, long lines, and updates that show at once;
// CUP and EL of ECMA-48. Terminals ignore modes that they do not know.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	begin       = "\x1b[?2026h\x1b[H"
	end         = "\x1b[?2026l"
	clearLine   = "\x1b[K"
)

// The size of a terminal that does not know its own, as over kubectl exec until the client has told it.
const (
	defaultWidth  = 80
	defaultHeight = 24
)

// sequenceTime is how long the rest of a key may take.
const sequenceTime = 50 * time.Millisecond

// screen is a terminal that shows one picture after the other. It needs close.
type screen struct {
	in, out *os.File
	before  *term.State
	typed   chan []byte // closed when the terminal is gone
	resized chan os.Signal
}

// IsTerminal reports whether a file is a terminal.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// openScreen takes the terminal over.
func openScreen(in, out *os.File) (*screen, error) {
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, fmt.Errorf("set up the terminal: %w", err)
	}
	s := &screen{in: in, out: out, before: before, typed: make(chan []byte),
		resized: make(chan os.Signal, 1)}
	signal.Notify(s.resized, unix.SIGWINCH)
	go s.read()
	_, err = io.WriteString(out, enterScreen)
	return s, err
}

// close gives the terminal back as it was.
func (s *screen) close() error {
	signal.Stop(s.resized)
	_, err := io.WriteString(s.out, leaveScreen)
	if restored := term.Restore(int(s.in.Fd()), s.before); restored != nil {
		return fmt.Errorf("restore the terminal: %w: the command reset does it", restored)
	}
	return err
}

// read passes on what is typed. It ends with the process, or with the terminal: nothing ends a read from it.
func (s *screen) read() {
	defer close(s.typed)
	for {
		buf := make([]byte, 256)
		n, err := s.in.Read(buf)
		if err != nil {
			return
		}
		s.typed <- buf[:n]
	}
}

// keys decodes what was typed, after it has waited for the rest of a key.
func (s *screen) keys(typed []byte) []key {
	for incomplete(typed) {
		select {
		case more, open := <-s.typed:
			if !open {
				return keys(typed)
			}
			typed = append(typed, more...)
		case <-time.After(sequenceTime):
			return keys(typed)
		}
	}
	return keys(typed)
}

// size returns the width and height in characters.
func (s *screen) size() (width, height int) {
	width, height, err := term.GetSize(int(s.out.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		return defaultWidth, defaultHeight
	}
	return width, height
}

// draw replaces the picture, with one write so that it does not flicker.
func (s *screen) draw(lines []string) error {
	// A line is cleared before it is written: behind the last column, clearing would take the last character.
	_, err := io.WriteString(s.out, begin+clearLine+strings.Join(lines, "\r\n"+clearLine)+end)
	return err
}
