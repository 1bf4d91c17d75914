package http1

import (
	"bytes"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Scan finds the end of a head in bytes that come piece by piece. It goes on
// where it stopped, so a head costs the same however it arrives. The zero value
// is at the beginning of a head, and so is a Scan that has found an end.
type Scan struct {
	start int // where the first line begins
	line  int // where the line begins that is being looked at
	at    int // how far that was done
}

// RequestEnd returns the length of the request head that buf begins with, 0 if
// buf has not all of it. buf is what it was the call before, and more. An error
// comes as soon as it is certain; what is not looked at here ParseRequest sees.
//
// One empty line before the request is let through, as RFC 9112, section 2.2,
// asks for (there are clients that send one after a body). It is then part of
// the head.
func (s *Scan) RequestEnd(buf []byte, l *Limits) (n int, err error) {
	if len(buf) == 0 {
		return 0, nil
	}
	if s.line == s.start {
		if err := s.begin(buf); err != nil {
			return 0, err
		}
	}
	if n, err = s.end(buf); err != nil {
		return 0, err
	}
	unfinished := s.line == s.start && len(buf)-s.start > l.requestLine()
	if n > l.head() || n == 0 && len(buf) >= l.head() || unfinished {
		return 0, tooLarge(buf[s.start:], l)
	}
	if n > 0 {
		*s = Scan{}
	}
	return n, nil
}

// begin refuses what does not begin as a request. TLS to a plaintext port, and
// whatever else is not HTTP, is not waited for until it has a line feed.
func (s *Scan) begin(buf []byte) error {
	if s.start == 0 && buf[0] == '\r' {
		switch {
		case len(buf) == 1:
			return nil
		case buf[1] != '\n':
			return errBareCR
		}
		s.start, s.line, s.at = 2, 2, 2
	}
	if buf = buf[s.start:]; len(buf) == 0 || message.IsTokenByte(buf[0]) {
		return nil
	}
	switch buf[0] {
	case '\r':
		return errEmptyLines
	case '\n':
		return errBareLF
	case ' ', '\t':
		return errRequestLine
	}
	return errNotHTTP
}

// tooLarge says which part of a request is too large.
func tooLarge(buf []byte, l *Limits) error {
	line := bytes.IndexByte(buf, '\n')
	switch {
	case line >= 0 && line <= min(l.requestLine(), l.head()):
		return errHeadSize
	case bytes.IndexByte(buf[:min(len(buf), maxMethod+1)], ' ') < 0:
		return errMethodSize
	}
	return errTargetSize
}

// ResponseEnd does for responses what RequestEnd does for requests. No empty
// line goes before a response.
func (s *Scan) ResponseEnd(buf []byte, l *Limits) (n int, err error) {
	const begin = "HTTP/"
	if s.line == 0 {
		if m := min(len(buf), len(begin)); string(buf[:m]) != begin[:m] {
			return 0, inResponse(errNotHTTP)
		}
	}
	n, err = s.end(buf)
	if err == nil && (n > l.head() || n == 0 && len(buf) >= l.head()) {
		err = errHeadSize
	}
	if err != nil {
		return 0, inResponse(err)
	}
	if n > 0 {
		*s = Scan{}
	}
	return n, nil
}

// end returns where the next empty line ends, 0 if there is none yet. The first
// line is not empty: that was seen to before.
func (s *Scan) end(buf []byte) (int, error) {
	for {
		i := bytes.IndexByte(buf[s.at:], '\n')
		if i < 0 {
			s.at = len(buf)
			return 0, nil
		}
		i += s.at
		// RFC 9112, section 2.2, lets a recipient take a bare line feed for a
		// line's end. One that does sees other heads than one that does not.
		if i == 0 || buf[i-1] != '\r' {
			return 0, errBareLF
		}
		empty := i-1 == s.line
		s.line, s.at = i+1, i+1
		if empty {
			return i + 1, nil
		}
	}
}
