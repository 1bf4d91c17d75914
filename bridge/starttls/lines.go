package starttls

import "bytes"

// Bounds on what a peer may send before, or to complete, an upgrade.
const (
	maxLine     = 8 << 10  // length of a line, such as IMAP's list of capabilities
	maxExchange = 64 << 10 // total length of all lines
	maxLines    = 1 << 10  // each line costs more than its bytes
)

// lines cuts bytes into lines.
type lines struct {
	buf        []byte // the bytes received since buf was last empty
	rest       []byte // the part of buf that is not consumed yet
	scanned    int    // bytes of rest without an end of line, so that each byte is scanned once
	total      int
	count      int  // number of lines
	fromClient bool // errors quote nothing, because a line may hold a password
}

// add appends bytes from the peer.
func (l *lines) add(in []byte) {
	if len(l.rest) == 0 {
		l.buf = l.buf[:0]
	}
	consumed := len(l.buf) - len(l.rest)
	l.buf = append(l.buf, in...)
	l.rest = l.buf[consumed:]
	l.total += len(in)
}

// next returns the next line, without its end. Ok is false if the line is
// incomplete.
func (l *lines) next() (line string, ok bool, err error) {
	end := bytes.IndexByte(l.rest[l.scanned:], '\n')
	if end >= 0 {
		end += l.scanned
	}
	switch {
	case end > maxLine, end < 0 && len(l.rest) > maxLine:
		return "", false, l.excess("a line of more than", maxLine, "bytes")
	case l.total > maxExchange:
		return "", false, l.excess("more than", maxExchange, "bytes")
	case end >= 0 && l.count >= maxLines:
		return "", false, l.excess("more than", maxLines, "lines")
	case end < 0:
		l.scanned = len(l.rest)
		return "", false, nil
	}
	l.scanned = 0
	l.count++
	line = string(bytes.TrimSuffix(l.rest[:end], []byte("\r")))
	l.rest = l.rest[end+1:]
	return line, true, nil
}

func (l *lines) excess(what string, bound int, unit string) error {
	if l.fromClient {
		return refused("the client sent %s %d %s", what, bound, unit)
	}
	return refused("the server sent %s %d %s: %s", what, bound, unit, quote(l.rest))
}
