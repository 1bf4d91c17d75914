package l7

import (
	"net"
	"runtime/debug"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
)

// maxStreams is how many requests a client may have under way on a connection.
const maxStreams = 250

// pseudoFields is how many fields a request has in HTTP/2 that are none in
// HTTP/1.1: :method, :scheme and :path. The :authority is Host there.
const pseudoFields = 3

// serveHTTP2 serves a client's connection of HTTP/2 until it ends; early is
// what was already read from it.
func (s *Server) serveHTTP2(c *conn, nc net.Conn, early []byte, st settings) {
	h := http2.NewServerConn(nc, early, http2.Options{
		MaxStreams:     maxStreams,
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
			s.log.Debug("request refused", "client", c.client, "error", printable(err))
		},
	})
	c.onEnd(h.Shutdown)
	if err := h.Serve(func(stream *http2.ServerStream) { s.serveStream(c, stream) }); err != nil {
		s.log.Debug("client's connection ended", "client", c.client, "error", printable(err))
	}
	c.sock.Release() // what came and is of no use any more
	c.sock.Close()
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
	if isGRPC(r.Fields) {
		stream.Patient() // the client of a stream has something to say when it has
	}
	s.handle(stream, r, c, s.options.Table())
}
