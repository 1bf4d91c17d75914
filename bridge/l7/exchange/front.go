package exchange

import (
	"context"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// An exchange is one request and its response, carried between a front and a back. It
// does not know their protocols: any front works with any back.
//
// Fronts and backs do the framing. The messages passed to them have no field
// that frames a message or belongs to one connection (Content-Length,
// Transfer-Encoding, Connection, Keep-Alive, TE, Upgrade and so on). They write
// these fields themselves: from Length (0 or more is the body's length, -1
// means unknown), from Declared in an answer to HEAD and in a 304, and from
// Upgrade and Trailers.

// A Front is the client's half of an exchange.
//
// One goroutine at a time may call Read, Buffered and Trailer, and another at the
// same time Inform, Respond, Write, Flush and End. Refuse, Abort and Notify may be
// called by any goroutine, at any time.
type Front interface {
	// BodyReader is the request's body. Read fails with os.ErrDeadlineExceeded if
	// the client was too slow, with an *http1.Error if the body is invalid, and
	// with any other error if the client has gone.
	message.BodyReader
	message.BodyWriter // writes the response's body

	// Refuse stops reading, because the rest of the body is not needed. A waiting
	// Read returns an error, and so does every later Read that would not return
	// io.EOF. The response may still be written. It may be called repeatedly.
	Refuse()

	// Inform sends an interim response (1xx but 101), at once.
	Inform(r *message.Response) error

	// Respond begins the final response. With end it is complete, and neither
	// Write nor End follows. Otherwise it may wait for Flush or End.
	Respond(r *message.Response, end bool) error

	// Abort ends the exchange so that the part of the response that was sent never
	// looks complete. Calls that wait return an error.
	Abort(cause error)

	// Notify registers gone, which is called at most once, from any goroutine, if
	// the client leaves before the exchange ends; immediately if the client has
	// already left. Notify(nil) removes it: when it returns, gone is not running and
	// will not be called.
	Notify(gone func(cause error))
}

// An Upstream connects an exchange's request to the endpoints of an upstream.
type Upstream interface {
	Upstream() *upstream.Upstream

	// SharesUpgrades reports whether an upgraded request shares its connection
	// with others.
	SharesUpgrades() bool

	// Preferred returns the endpoint to which the request should go if possible,
	// or nil.
	Preferred() *upstream.Endpoint

	// ExpectLogin says that an endpoint asked the client for a login that
	// authenticates the connection instead of the request alone.
	ExpectLogin(e *upstream.Endpoint)

	// Connect returns a Back to an endpoint. It sets *given to how it obtained the
	// Back, even if it fails, and sets the request's Scheme and Authority for the
	// endpoint.
	Connect(e *upstream.Endpoint, n Need, given *BackInfo) (message.Back, error)
}

// A Need describes the connection that an exchange needs.
type Need struct {
	Turn    *upstream.Turn // the request's turn at the upstream
	Fresh   bool           // the connection must not have been used before
	Avoid   any            // the BackInfo.Carrier that refused the request last, or nil
	Context func() (ctx context.Context, done func())
}

// BackInfo says how Connect obtained a Back.
type BackInfo struct {
	Reused   bool            // the connection carried requests before
	Protocol string          // "HTTP/1.1" or "HTTP/2.0"
	Dial     *accesslog.Dial // the record of the dial, successful or not; nil: no dial was tried
	Carrier  any             // identifies an HTTP/2 connection, for Need.Avoid; nil for HTTP/1.1
}
