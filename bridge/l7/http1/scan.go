package http1

import (
	"bytes"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Scan finds the end of a head that arrives in pieces. It resumes where it
// stopped, so the cost of a head does not depend on how it is split. The zero
// value is ready for a new head, and so is a Scan that has found an end.
type Scan struct {
	start int // offset of the first line
	line  int // offset of the current line
	at    int // offset of the first byte not yet scanned
}

// RequestEnd returns the length of the request head at the start of buf, or 0
// if the head is incomplete. On each call, buf holds the bytes of the last call
// and any new ones. An error is returned as soon as it is certain; ParseRequest
// checks everything else.
//
// RFC 9112, section 2.2, asks servers to ignore an empty line before a request,
// because some clients send one after a body. One is allowed, and counted as
// part of the head.
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

// begin rejects bytes that cannot begin a request. So TLS on a plaintext port
// fails at once, and not only after a line feed.
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

// ResponseEnd is RequestEnd for responses, except that no empty line may come
// first.
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

// end returns the offset after the next empty line, or 0 if buf does not have
// it yet. The caller has already checked that the first line is not empty.
func (s *Scan) end(buf []byte) (int, error) {
	for {
		i := bytes.IndexByte(buf[s.at:], '\n')
		if i < 0 {
			s.at = len(buf)
			return 0, nil
		}
		i += s.at
		// RFC 9112, section 2.2, lets a recipient accept a bare line feed as
		// the end of a line. Recipients that do and recipients that do not see
		// different heads.
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
