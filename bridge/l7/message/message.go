package message

// A Request is the head of a request.
type Request struct {
	Method string

	// Scheme is "http" or "https", from :scheme or a target in absolute form. It
	// is "" if the message names no scheme. Then only the listener knows the
	// scheme.
	Scheme string

	// Authority is the host of the absolute form, of :authority, or of Host,
	// unchanged. A parser rejects a request in which two of these differ.
	Authority string

	// Target is the path with its query, unchanged, or "*" (RFC 9112, section
	// 3.2). It is "" for a CONNECT without a path.
	Target string

	// Protocol is the :protocol of an extended CONNECT (RFC 8441), else "".
	Protocol string

	// Fields are all fields except Host and pseudo-header fields. Fields that
	// frame the message or belong to the connection are still in it; policy
	// removes them.
	Fields Fields

	// Length is the body length: 0 without a body, -1 if it is unknown until the
	// body ends.
	Length int64

	// Policy keeps this information from the connection fields after it has
	// removed them from Fields. Each protocol version writes them its own way, or
	// not at all.
	Upgrade  string // protocols the client offers to switch to, or ""
	Trailers bool   // the client accepts trailers (TE: trailers)

	Major, Minor int // protocol version
}

// A Response is the head of a response, an interim one (1xx) or the final one.
type Response struct {
	Status int
	Reason string // for logs; never forwarded
	Fields Fields

	// Length is the length of the body that follows, or -1 if it is unknown until
	// the body ends. It is 0 where no body can follow (1xx, 204, 304, and a
	// response to HEAD), even if it has a Content-Length.
	Length int64

	// Declared is the Content-Length of a response to HEAD or of a 304, neither
	// of which has a body. It is -1 without one, and has no meaning in other
	// responses.
	Declared int64

	// Upgrade is the protocol that a 101 switches to, or the protocols that a
	// 426 asks the client to use. HTTP/2 cannot express either.
	Upgrade string
}

// HasBody reports whether a body follows the head. A body of unknown length may
// still be empty.
func (r *Request) HasBody() bool { return r.Length != 0 }

// Interim reports whether another head follows this one (RFC 9110, section
// 15.2). A 101 is not interim: HTTP ends with it.
func (r *Response) Interim() bool { return r.Status >= 100 && r.Status < 200 && r.Status != 101 }
