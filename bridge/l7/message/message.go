package message

// A Request is the head of a request.
type Request struct {
	Method string

	// Scheme is "http" or "https", of :scheme or of a target in absolute
	// form; "" where the message does not say it and only the listener knows.
	Scheme string

	// Authority is the absolute form's, :authority, or Host, as given. A
	// parser refuses a request in which they differ.
	Authority string

	// Target is the path with its query, as given, or "*" (RFC 9112, section
	// 3.2). It is "" in a CONNECT that has no path.
	Target string

	// Protocol is :protocol of an extended CONNECT (RFC 8441); else "".
	Protocol string

	// Fields are all but Host and pseudo-header fields. Those that frame the
	// message or belong to the connection are still there: policy takes them
	// out.
	Fields Fields

	// Length is the length of the body: 0 if there is none, -1 if it is known
	// only at its end.
	Length int64

	// What policy passes on of the connection's fields, once they are out of
	// Fields: each version has its own way to say so, or none.
	Upgrade  string // protocols that HTTP/1.1 is to change to; "" none
	Trailers bool   // the client takes trailers (TE: trailers)

	Major, Minor int // version of the protocol
}

// A Response is the head of a response, an interim one (1xx) or the final one.
type Response struct {
	Status int
	Reason string // never forwarded: it is for logs
	Fields Fields

	// Length is the length of the body that follows, -1 if it is known only
	// at its end. It is 0 where no body can follow (1xx, 204, 304, and any
	// answer to HEAD), whatever a Content-Length says.
	Length int64

	// Declared is what Content-Length says in an answer to HEAD and in a 304,
	// where no body follows; -1 if there is none. It matters there alone.
	Declared int64

	// Upgrade is, of a 101, the protocol that follows, and of a 426 those that
	// the client is to ask for, which HTTP/2 has no way to say.
	Upgrade string
}

// HasBody reports whether a body follows the head, perhaps an empty one of
// unknown length.
func (r *Request) HasBody() bool { return r.Length != 0 }

// Interim reports whether another head follows this one (RFC 9110, section
// 15.2). 101 is none of them: HTTP ends there.
func (r *Response) Interim() bool { return r.Status >= 100 && r.Status < 200 && r.Status != 101 }
