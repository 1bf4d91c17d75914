package http1

import (
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Body says how a message that is written says where its body ends.
type Body uint8

const (
	// NoBody writes nothing: of a request it says that it has no body. Of a
	// response it serves 1xx, 204, 304, and answers to HEAD.
	NoBody Body = iota
	// Sized writes Content-Length. A response to HEAD, and 304, have no body
	// even so.
	Sized
	// InChunks writes Transfer-Encoding: chunked.
	InChunks
	// UntilClose is for a response to HTTP/1.0: its body ends with the
	// connection. It writes Connection: close.
	UntilClose
)

// Framing is what a message that is written says of its length and of its
// connection. Nothing else does: the fields of a message cannot.
type Framing struct {
	Body      Body
	Length    int64  // of a body that is Sized
	Close     bool   // Connection: close
	KeepAlive bool   // Connection: keep-alive, for HTTP/1.0
	Upgrade   string // Upgrade with its connection option: asks for protocols, or says to which one switches
	Trailers  bool   // TE: trailers with its connection option; of a request
}

// A WriteError says that something was to be written that cannot be. Nothing of
// it was.
type WriteError struct{ Reason string }

func (e *WriteError) Error() string { return "cannot be written in HTTP/1.1: " + e.Reason }

var (
	errWriteMethod    = &WriteError{"the method is no token, or CONNECT"}
	errWriteTarget    = &WriteError{"the target is neither a path nor * for OPTIONS"}
	errWriteAuthority = &WriteError{"the authority is not a host with or without a port"}
	errWriteStatus    = &WriteError{"the status code is not between 100 and 599"}
	errWriteName      = &WriteError{"the name of a field is no token"}
	errWriteFraming   = &WriteError{"a field that frames the message or belongs to the connection"}
	errWriteValue     = &WriteError{"the value of a field has control characters, or blanks around it"}
	errWriteLength    = &WriteError{"the length is negative"}
	errWriteBody      = &WriteError{"a body where there can be none, or that has no end"}
	errWriteUpgrade   = &WriteError{"the upgrade names no protocol, or the connection is to close"}
)

// AppendRequest appends the head of a request in HTTP/1.1, in which Host is
// Authority. After an error it returns dst as it was.
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

// AppendResponse appends the head of a response, an interim or the final one,
// in HTTP/1.1. The reason is the registered one of the status code, if it has
// one. After an error it returns dst as it was.
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

// appendFields appends fields, and sees to it that each is one, and that none
// speaks of the message's framing or its connection.
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

// AppendChunk appends a chunk with data, nothing if there is none: an empty
// chunk would end the body.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkSize(dst, len(data))
	dst = append(dst, data...)
	return append(dst, ChunkEnd...)
}

// AppendChunkSize appends what stands before n bytes of data, more than none,
// for a caller that does not want to copy them. ChunkEnd stands after them.
func AppendChunkSize(dst []byte, n int) []byte {
	if n <= 0 {
		panic("http1: a chunk of nothing")
	}
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, "\r\n"...)
}

// ChunkEnd stands after the data of a chunk.
const ChunkEnd = "\r\n"

// AppendLastChunk appends the end of a body in chunks, with a trailer if there
// are fields for one. After an error it returns dst as it was.
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
