package starttls

import "bytes"

// Bounds on what a peer may send before, or to complete, an upgrade.
const (
	maxLine     = 8 << 10  // of a line, such as IMAP's list of capabilities
	maxExchange = 64 << 10 // of all lines together
)

// lines cuts bytes into lines.
type lines struct {
	rest       []byte // not consumed yet
	total      int
	fromClient bool // errors quote nothing, because a line may hold a password
}

// add appends what the peer sent.
func (l *lines) add(in []byte) {
	l.rest = append(l.rest, in...)
	l.total += len(in)
}

// next returns the next line, without its end. Ok is false if it is not
// complete.
func (l *lines) next() (line string, ok bool, err error) {
	end := bytes.IndexByte(l.rest, '\n')
	switch {
	case end > maxLine, end < 0 && len(l.rest) > maxLine:
		return "", false, l.excess("a line of more than", maxLine)
	case l.total > maxExchange:
		return "", false, l.excess("more than", maxExchange)
	case end < 0:
		return "", false, nil
	}
	line = string(bytes.TrimSuffix(l.rest[:end], []byte("\r")))
	l.rest = l.rest[end+1:]
	return line, true, nil
}

func (l *lines) excess(what string, bound int) error {
	if l.fromClient {
		return refused("the client sent %s %d bytes", what, bound)
	}
	return refused("the server sent %s %d bytes: %s", what, bound, quote(l.rest))
}
