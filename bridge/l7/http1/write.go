package http1

import (
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Body selects how a written message marks the end of its body.
type Body uint8

const (
	// Nothing is written. A request then has an empty body. In responses it is
	// for 1xx, 204, 304, and for HEAD.
	NoBody Body = iota
	// Sized writes Content-Length. It is also allowed for 304 and in a response
	// to HEAD, which have no body.
	Sized
	// InChunks writes Transfer-Encoding: chunked.
	InChunks
	// UntilClose is for a response to an HTTP/1.0 client: the body ends with
	// the connection. It writes Connection: close.
	UntilClose
)

// Framing sets all fields about a message's length and its connection. The
// message's own Fields cannot contain any.
type Framing struct {
	Body      Body
	Length    int64  // with Sized
	Close     bool   // Connection: close
	KeepAlive bool   // Connection: keep-alive, for HTTP/1.0
	Upgrade   string // Upgrade and its connection option: the protocols to offer, or the one to switch to
	Trailers  bool   // TE: trailers and its connection option; requests only
}

// A WriteError says why a message cannot be written. No byte of the message was
// written.
type WriteError struct{ Reason string }

func (e *WriteError) Error() string { return "cannot write it as HTTP/1.1: " + e.Reason }

var (
	errWriteMethod    = &WriteError{"the method is CONNECT or not a token"}
	errWriteTarget    = &WriteError{"the target is neither a path nor * for OPTIONS"}
	errWriteAuthority = &WriteError{"the authority is not a host with an optional port"}
	errWriteStatus    = &WriteError{"the status code is not between 100 and 599"}
	errWriteName      = &WriteError{"a field name is not a token"}
	errWriteFraming   = &WriteError{"a field that frames the message or belongs to the connection"}
	errWriteValue     = &WriteError{"a field value has control characters or surrounding blanks"}
	errWriteLength    = &WriteError{"the length is negative"}
	errWriteBody      = &WriteError{"the message cannot have this kind of body"}
	errWriteUpgrade   = &WriteError{"Upgrade is not a protocol name, or the connection closes"}
)

// AppendRequest appends the head of an HTTP/1.1 request, with Authority as its
// Host. On error it returns dst unchanged.
func AppendRequest(dst []byte, r *message.Request, f Framing) ([]byte, error) {
	switch {
	case r.Method == "CONNECT" || len(r.Method) > maxMethod || !message.IsToken(r.Method):
		return dst, errWriteMethod
	case !message.IsTarget(r.Target) && (r.Target != "*" || r.Method != "OPTIONS"):
		return dst, errWriteTarget
	case !message.IsAuthority(r.Authority):
		return dst, errWriteAuthority
	case f.Body == UntilClose:
		return dst, errWriteBody
	}
	b := append(dst, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Authority...)
	b = append(b, "\r\n"...)
	b, err := appendFraming(b, &f)
	if err == nil {
		b, err = appendFields(b, r.Fields, true)
	}
	if err != nil {
		return dst, err
	}
	return append(b, "\r\n"...), nil
}

// AppendResponse appends the head of an HTTP/1.1 response, interim or final. It
// writes the registered reason phrase of the status code, if one exists. On
// error it returns dst unchanged.
func AppendResponse(dst []byte, r *message.Response, f Framing) ([]byte, error) {
	switch s := r.Status; {
	case s < 100 || s > 599:
		return dst, errWriteStatus
	case (s < 200 || s == 204) && f.Body != NoBody, s == 304 && f.Body != NoBody && f.Body != Sized:
		return dst, errWriteBody
	case f.Trailers:
		return dst, errWriteFraming
	case s == 101 && (f.Upgrade == "" || f.Close):
		return dst, errWriteUpgrade
	}
	f.Close = f.Close || f.Body == UntilClose
	b := append(dst, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.Status), 10)
	b = append(b, ' ')
	b = append(b, reasons[r.Status]...)
	b = append(b, "\r\n"...)
	b, err := appendFraming(b, &f)
	if err == nil {
		b, err = appendFields(b, r.Fields, false)
	}
	if err != nil {
		return dst, err
	}
	return append(b, "\r\n"...), nil
}

func appendFraming(b []byte, f *Framing) ([]byte, error) {
	switch f.Body {
	case Sized:
		if f.Length < 0 {
			return b, errWriteLength
		}
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, f.Length, 10)
		b = append(b, "\r\n"...)
	case InChunks:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if f.Upgrade != "" {
		if !message.IsValue(f.Upgrade) {
			return b, errWriteUpgrade
		}
		b = append(b, "Upgrade: "...)
		b = append(b, f.Upgrade...)
		b = append(b, "\r\n"...)
	}
	if f.Trailers {
		b = append(b, "TE: trailers\r\n"...)
	}
	return appendConnection(b, f), nil
}

func appendConnection(b []byte, f *Framing) []byte {
	if !f.Close && !f.KeepAlive && f.Upgrade == "" && !f.Trailers {
		return b
	}
	b = append(b, "Connection: "...)
	switch {
	case f.Close:
		b = append(b, "close, "...)
	case f.KeepAlive:
		b = append(b, "keep-alive, "...)
	}
	if f.Upgrade != "" {
		b = append(b, "Upgrade, "...)
	}
	if f.Trailers {
		b = append(b, "TE, "...)
	}
	return append(b[:len(b)-len(", ")], "\r\n"...)
}

// appendFields appends fields. It rejects a malformed field, and any field that
// frames the message or belongs to the connection.
func appendFields(b []byte, fields message.Fields, request bool) ([]byte, error) {
	for i := range fields {
		name, value := fields[i].Name, fields[i].Value
		switch {
		case !message.IsToken(name):
			return b, errWriteName
		case message.IsConnectionField(name) || request && message.EqualFold(name, "Host"):
			return b, errWriteFraming
		case !message.IsValue(value):
			return b, errWriteValue
		}
		b = append(b, name...)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, "\r\n"...)
	}
	return b, nil
}

// AppendChunk appends a chunk with data. For empty data it appends nothing,
// because an empty chunk would end the body.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkSize(dst, len(data))
	dst = append(dst, data...)
	return append(dst, ChunkEnd...)
}

// AppendChunkSize appends the line before n bytes of data, where n > 0. It is
// for callers that write the data without copying it, followed by ChunkEnd.
func AppendChunkSize(dst []byte, n int) []byte {
	if n <= 0 {
		panic("http1: chunk size is not positive")
	}
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, "\r\n"...)
}

// ChunkEnd follows the data of a chunk.
const ChunkEnd = "\r\n"

// AppendLastChunk appends the end of a chunked body, with a trailer if it has
// fields. On error it returns dst unchanged.
func AppendLastChunk(dst []byte, trailer message.Fields) ([]byte, error) {
	for i := range trailer {
		if !inTrailer(trailer[i].Name) {
			return dst, errWriteFraming
		}
	}
	b, err := appendFields(append(dst, "0\r\n"...), trailer, true)
	if err != nil {
		return dst, err
	}
	return append(b, "\r\n"...), nil
}
