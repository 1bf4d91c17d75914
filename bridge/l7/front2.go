package l7

import (
	"net"
	"runtime/debug"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
)

const (
	// maxStreams is how many requests a client may have in progress on a connection.
	maxStreams = 100

	// streamMemory is the memory of a request in progress without its head and the
	// windows of its stream: see TestAnOpenRequestHoldsLittle.
	streamMemory = 8 << 10

	// unreadMemory is what the connection to the upstream holds of a response that is not
	// read: crypto/tls has its own buffers, and can decrypt a record of 16 KiB only as a
	// whole. See TestUnreadResponsesHoldLittle.
	unreadMemory = 27 << 10

	// maxStreamMemory bounds the memory of all requests in progress on a connection:
	// enough for maxStreams requests with heads of 2 KiB, or for fewer with larger
	// heads. If largestHeads heads need more, that size is the bound.
	maxStreamMemory = 1 << 20
	largestHeads    = 16
)

// pseudoFields is how many fields a request has in HTTP/2 but not in HTTP/1.1:
// :method, :scheme and :path. The :authority is Host in HTTP/1.1.
const pseudoFields = 3

// A front2 serves a client's HTTP/2 connection. Each of its streams is the front of
// an exchange.
type front2 struct {
	server *Server
	conn   *conn
	http   *http2.ServerConn
}

// newFront2 returns the front2 of a connection; early holds the bytes already read
// from it. nc is its Socket, or TLS on top of that.
func newFront2(s *Server, c *conn, nc net.Conn, early []byte, st settings) *front2 {
	f := &front2{server: s, conn: c}
	f.http = http2.NewServerConn(wire.NewStream(nc, &s.buffers, &s.counters.fromClient), early, http2.Options{
		MaxStreams:     maxStreams,
		MaxMemory:      max(maxStreamMemory, largestHeads*st.maxHeaderBytes),
		StreamMemory:   streamMemory,
		UnreadMemory:   unreadMemory,
		MaxHeaderBytes: st.maxHeaderBytes,
		MaxFields:      st.maxHeaderFields + pseudoFields,
		HeaderTimeout:  st.headerReadTimeout,
		IdleTimeout:    st.idleTimeout,
		StallTimeout:   st.idleTimeout,
		MaxAge:         st.age(),
		MaxRequests:    st.maxRequests,
		BodyTimeout:    st.idleTimeout,
		MinRate:        minRate,

		ExtendedConnect: true,
		Refused: func(err *http2.Error) {
			s.log.Debug("request refused", "client", c.facts.Client, "error", policy.Printable(err))
		},
		Panicked: func(value any, stack []byte) {
			s.log.Error("panic while serving a client's connection", "client", c.facts.Client, "panic", value, "stack", string(stack))
		},
		Wake: c.unpark,
	})
	c.carries(f.http)
	c.parked.Store(nil) // the connection may have been parked by a front1
	return f
}

// serve is like front1.serve.
func (f *front2) serve() {
	c, s, h := f.conn, f.server, f.http
	handler := func(stream *http2.ServerStream) { s.serveStream(c, stream) }
	err := h.Serve(handler)
	for ; err == http2.ErrParked; err = h.Serve(handler) {
		if c.park(f.serve) {
			if h.Over() {
				c.unpark() // in case the connection ended before it was parked
			}
			return
		}
	}
	if err != nil {
		s.log.Debug("client's connection ended", "client", c.facts.Client, "error", policy.Printable(err))
	}
	c.sock.Release() // http2 has consumed the received bytes
	c.sock.Close()
	s.intake.Done()
}

// serveStream serves one request.
func (s *Server) serveStream(c *conn, stream *http2.ServerStream) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic while serving a request", "panic", p, "stack", string(debug.Stack()))
			stream.Abort(errPanic)
		}
	}()
	r := stream.Request()
	if policy.IsGRPC(r.Fields) {
		stream.NoBodyTimeout() // the client has used the stream
	}
	s.handle(stream, r, c, s.options.Table())
}
