package l7

import "github.com/drawbridge-gateway/drawbridge/bridge/l7/message"

// An exchange is one request and its response, carried between a front and a
// back. It knows neither's protocol: any front meets any back.
//
// Framing is the fronts' and backs' own. What they are given has no field that
// frames a message or belongs to one connection (Content-Length,
// Transfer-Encoding, Connection, Keep-Alive, TE, Upgrade and so on). They write
// their own: from Length, of which 0 or more is the body's length and -1 a body
// that ends when it ends, from Declared in an answer to HEAD and in a 304, and
// from Upgrade and Trailers.

// A front is the client's half of an exchange.
//
// One goroutine at a time may call Read, Buffered and Trailer, and another at
// the same time Inform, Respond, Write, Flush and End. Refuse, Abort and Notify may be
// called by any, any time.
type front interface {
	// Read waits for bytes of the request's body and returns them: a view that
	// is valid until the next Read or Buffered. At the body's end it returns io.EOF. Any
	// other error is the end of the body too, and it is not whole:
	// os.ErrDeadlineExceeded if the client was too slow, an *http1.Error if
	// what it sent is no body, anything else if the client has gone.
	Read() ([]byte, error)
	// Buffered reports whether Read would return without waiting: there are
	// bytes, or the end is known.
	Buffered() bool
	// Trailer returns the trailer fields, once Read has returned io.EOF.
	Trailer() message.Fields
	// Refuse ends the reading: the rest of the body is not wanted. A Read that
	// waits returns an error, and so does every later one that is not io.EOF
	// already. The response may still be written. It may be called repeatedly.
	Refuse()

	// Inform sends an interim response (1xx but 101), at once.
	Inform(r *message.Response) error
	// Respond begins the final response; with end it is complete, and neither
	// Write nor End is called. It may wait for Flush or End unless end is set.
	Respond(r *message.Response, end bool) error
	// Write sends bytes of the body. They are the caller's again when it
	// returns, and may wait for Flush or End. It blocks while the client
	// takes nothing.
	Write(p []byte) error
	// Flush sends whatever still waits.
	Flush() error
	// End completes the body, and sends everything.
	End(trailer message.Fields) error

	// Abort ends the exchange so that what was sent of the response never
	// looks complete. Whatever call is waiting returns an error.
	Abort(cause error)
	// Notify has gone called, from any goroutine and at most once, if the
	// client goes before the exchange is over. It is called at once if the client has gone
	// already. Nil takes it back: when Notify(nil) returns, gone is not
	// running and will not be called.
	Notify(gone func(cause error))
}

// A back is the upstream's half of an exchange: a connection of HTTP/1.1, or a
// stream of HTTP/2.
//
// One goroutine at a time may call Send, Write, Flush and End, and another at
// the same time Receive, Read, Buffered and Trailer. Abort may be called by
// any, any time, until Done.
type back interface {
	// Send begins the request; with end it is complete and sent at once, and
	// neither Write nor End is called. Else it may wait for Flush or End.
	Send(r *message.Request, end bool) error
	// Write, Flush and End are a front's, for the request's body.
	Write(p []byte) error
	Flush() error
	End(trailer message.Fields) error

	// Receive waits for the next response head and fills it in: each interim
	// one, then the final one. What it fills in is valid until Done.
	Receive(into *message.Response) error
	// Read, Buffered and Trailer are a front's, for the response's body. An
	// error other than io.EOF means that the body is not whole.
	Read() ([]byte, error)
	Buffered() bool
	Trailer() message.Fields

	// Abort ends the exchange upstream. Whatever call is waiting returns an
	// error, for a request that fails so is not the endpoint's failure.
	Abort(cause error)
	// Done ends it too: no other call is running, and none follows. What
	// carried it is used again only if it is provably clean: the request was
	// sent to its end and the response read to its own.
	Done()
}
