package message

// A BodyReader reads a received body.
type BodyReader interface {
	// Read waits for bytes of the body and returns a view of them, valid until
	// the next Read or Buffered. At the end of the body it returns io.EOF. Any
	// other error means that the body is incomplete.
	Read() ([]byte, error)

	// Buffered reports whether Read would return without waiting: there are
	// bytes, or the body has ended.
	Buffered() bool

	// Trailer returns the trailer fields, once Read has returned io.EOF.
	Trailer() Fields
}

// A BodyWriter sends a body.
type BodyWriter interface {
	// Write sends bytes of the body. It does not keep p. The bytes may wait for
	// Flush or End. It blocks while the peer does not read.
	Write(p []byte) error

	// Flush sends everything queued.
	Flush() error

	// End completes the body, with an optional trailer, and sends everything queued.
	End(trailer Fields) error
}

// A Back carries one request to an endpoint and its response back: a connection of
// HTTP/1.1, or a stream of HTTP/2.
//
// One goroutine at a time may call Send, Write, Flush and End, and another at the
// same time Receive, Read, Buffered and Trailer. Abort may be called by any
// goroutine, at any time until Done.
type Back interface {
	BodyReader // reads the response's body
	BodyWriter // writes the request's body

	// Send begins the request. With end it is complete and is sent at once, and
	// neither Write nor End follows. Otherwise it may wait for Flush or End.
	Send(r *Request, end bool) error

	// Receive waits for the next response head: each interim one, then the final
	// one. The head is valid until Done.
	Receive(into *Response) error

	// Abort ends the request. Calls that wait return an error. Such a failure is
	// not blamed on the endpoint.
	Abort(cause error)

	// Done releases the Back. No other call is running, and no call follows. Its
	// connection is used again only if the whole request was sent and the whole
	// response read.
	Done()
}
