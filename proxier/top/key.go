package top

import "bytes"

// key is what was typed: a printable ASCII character, or one of these.
type key rune

const (
	keyUp key = -1 - iota
	keyDown
	keyLeft
	keyRight
	keyPageUp
	keyPageDown
	keyHome
	keyEnd
	keyEnter
	keyEscape
	keyBackspace
	keyInterrupt // Ctrl-C
)

// escape begins the sequence of a key that is no character.
const escape = 0x1b

// sequences returns the keys that terminals send as several bytes, from ECMA-48 and the manual of xterm.
func sequences() map[string]key {
	return map[string]key{
		"\x1b[A": keyUp, "\x1bOA": keyUp,
		"\x1b[B": keyDown, "\x1bOB": keyDown,
		"\x1b[C": keyRight, "\x1bOC": keyRight,
		"\x1b[D": keyLeft, "\x1bOD": keyLeft,
		"\x1b[5~": keyPageUp, "\x1b[6~": keyPageDown,
		"\x1b[H": keyHome, "\x1bOH": keyHome, "\x1b[1~": keyHome, "\x1b[7~": keyHome,
		"\x1b[F": keyEnd, "\x1bOF": keyEnd, "\x1b[4~": keyEnd, "\x1b[8~": keyEnd,
	}
}

// keys decodes what a terminal has sent. Sequences of other keys are left out.
func keys(typed []byte) (list []key) {
	for len(typed) > 0 {
		c := typed[0]
		n := 1
		switch {
		case c == escape:
			n = sequenceLength(typed)
			if n == 1 {
				list = append(list, keyEscape)
			} else if k, known := sequences()[string(typed[:n])]; known {
				list = append(list, k)
			}
		case c == 3:
			list = append(list, keyInterrupt)
		case c == '\r', c == '\n':
			list = append(list, keyEnter)
		case c == 8, c == 127:
			list = append(list, keyBackspace)
		case c >= ' ' && c < 127:
			list = append(list, key(c))
		}
		typed = typed[n:]
	}
	return list
}

// sequenceLength returns the length of the sequence that begins with an escape, as far as it is there.
func sequenceLength(typed []byte) int {
	if len(typed) < 2 || typed[1] != '[' && typed[1] != 'O' {
		return 1
	}
	for i := 2; i < len(typed); i++ {
		if typed[i] >= '@' && typed[i] <= '~' {
			return i + 1
		}
	}
	return len(typed)
}

// incomplete reports whether the rest of a sequence may still come, as over a slow connection.
func incomplete(typed []byte) bool {
	last := bytes.LastIndexByte(typed, escape)
	if last < 0 {
		return false
	}
	rest := typed[last:]
	n := sequenceLength(rest)
	return n == len(rest) && (n < 3 || rest[n-1] < '@' || rest[n-1] > '~')
}
