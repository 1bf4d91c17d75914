package http2

import (
	"io"
	"net"
	"runtime/debug"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A ServerConn is a client's connection.
type ServerConn struct {
	conn
	handler    func(*ServerStream)
	running    int        // handlers, guarded by mu: a stream that was reset counts until its handler has noticed
	workerPool workerPool // the goroutines that call it
	taken      int        // streams, guarded by mu
	waiting    int        // Reads that wait for a body, guarded by mu

	dismissed int // streams that wait to be reset, guarded by mu

	// Of a shutdown, guarded by mu.
	draining  int64 // since when it has been going on; 0: it is not
	announced bool  // which streams are the last
}

// drainPing is what the ping behind the first GOAWAY of a shutdown carries.
var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}

// drainPatience is how long its answer is waited for.
const drainPatience = time.Second

// NewServerConn returns a ServerConn that owns nc; early is what was already
// read from it. Serve must be called.
func NewServerConn(nc net.Conn, early []byte, o Options) *ServerConn {
	c := &ServerConn{}
	c.init(nc, early, o)
	c.server = c
	c.workerPool.wanted.L = &c.mu
	settings := []h2.Setting{{ID: h2.SettingMaxConcurrentStreams, Val: uint32(c.o.MaxStreams)}}
	if o.ExtendedConnect {
		settings = append(settings, h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1})
	}
	c.greet("", settings...)
	return c
}

// Serve serves the connection until it is at its end, and calls handler on a
// goroutine of its own for each stream. It returns when the connection is
// closed and every handler has returned; nil if the connection ended as it
// should.
//
// The exchange is over when handler returns. A stream that was not ended by
// then is reset; a client that is still sending when all was answered is told
// that it need not.
//
// If it returns ErrParked it is to be called again, by whatever goroutine.
func (c *ServerConn) Serve(handler func(*ServerStream)) error {
	c.handler = handler
	c.mu.Lock()
	begun := c.timer != nil
	c.parking = reading
	c.mu.Unlock()
	if begun {
		return c.read(nil)
	}
	return c.run(c.readPreface)
}

// Over reports whether the connection is at its end, which Serve sees to if it has
// not returned for that yet.
func (c *ServerConn) Over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// Shutdown lets streams come to their end and then closes the connection: the
// client is told to open no more, and those that it opened before it knew are
// served. Serve returns when that is done. It may be called repeatedly, by any
// goroutine.
func (c *ServerConn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutdownLocked()
}

func (c *ServerConn) shutdownLocked() {
	if c.draining != 0 || c.err != nil {
		return
	}
	c.draining = max(c.now(), 1)
	c.out.goAway(maxWindow, h2.ErrCodeNo, "")
	c.out.ping(drainPing)
}

// goAwayLocked is the second half of a shutdown: the client has had the time to
// learn of it, so what it has opened by now is all that is served.
func (c *ServerConn) goAwayLocked() {
	if c.draining == 0 || c.announced || c.err != nil {
		return
	}
	c.announced = true
	c.out.goAway(c.lastID, h2.ErrCodeNo, "")
	c.checkIdleLocked()
}

// drained reports whether the connection ends with its last stream.
func (c *ServerConn) drained() bool { return c.announced }

func (c *ServerConn) tickLocked(now int64) []ended {
	if c.o.MaxAge > 0 && now > int64(c.o.MaxAge) {
		c.shutdownLocked()
	}
	if c.draining != 0 && now-c.draining > int64(drainPatience) {
		c.goAwayLocked()
	}
	c.lateLocked(now)
	c.workerPool.releaseLocked()
	c.parkLocked(now)
	return nil
}

// readPreface reads what a client's connection begins with.
func (c *ServerConn) readPreface() *Error {
	var p [len(h2.ClientPreface)]byte
	if _, err := io.ReadFull(c.in.reader, p[:]); err != nil {
		return c.in.readError(err)
	}
	if string(p[:]) != h2.ClientPreface {
		return broken(h2.ErrCodeProtocol, "no preface")
	}
	return nil
}

// onBlockLocked takes the block as a request's head, or as the trailer of s if
// that is not nil.
func (c *ServerConn) onBlockLocked(s *stream, id uint32, end bool) *Error {
	if s != nil {
		return s.onTrailerLocked(end)
	}
	c.lastID = id
	start, why := c.openLocked(id, end)
	if start != nil {
		c.in.opened = append(c.in.opened, start)
	}
	return why
}

// openLocked opens a stream, or says why it does not.
func (c *ServerConn) openLocked(id uint32, end bool) (*ServerStream, *Error) {
	// Streams of which the client knows that they are over may still have
	// handlers that do not.
	if len(c.streams) >= c.o.MaxStreams || c.running >= 2*c.o.MaxStreams {
		return nil, &Error{Code: h2.ErrCodeRefusedStream, Reason: "more streams than are allowed"}
	}
	if c.in.block.tooLarge && c.in.block.fault == "" {
		c.encoder.response(&message.Response{Status: 431}, false)
		c.out.block(id, c.encoder.buf.b, true)
		c.out.kick()
		if !end {
			s := &ServerStream{}
			s.init(&c.conn, id)
			s.server, s.sendEnd = s, true
			c.streams[id] = &s.stream
			s.dismissLocked()
		}
		return nil, &Error{Code: h2.ErrCodeNo, Reason: "a head larger than is allowed"}
	}
	s := &ServerStream{}
	if fault := c.in.block.request(&s.request, end, c.o.ExtendedConnect); fault != "" {
		return nil, malformed(fault)
	}
	s.init(&c.conn, id)
	s.server = s
	s.recvEnd = end
	if s.left = s.request.Length; s.left == 0 && !end {
		// Its body has yet to turn out empty, and until then the request is not
		// whole: it must not be sent on as one.
		s.request.Length = -1
	}
	c.streams[id] = &s.stream
	c.running++
	if c.taken++; c.taken == c.o.MaxRequests {
		c.shutdownLocked()
	}
	return s, nil
}

// handle lets the handler serve a stream, and sees to it that it ends.
func (c *ServerConn) handle(s *ServerStream) {
	c.call(s)
	s.Notify(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if s.sendEnd && !s.closed { // section 8.1: all is answered, whatever else was to be sent
		s.dismissLocked()
	} else {
		s.resetLocked(h2.ErrCodeInternal, errOver)
		s.overLocked(errOver)
	}
	c.checkIdleLocked()
}

// call calls the handler. A panic ends the stream and not the process.
func (c *ServerConn) call(s *ServerStream) {
	defer func() {
		if p := recover(); p != nil {
			if c.o.Panicked != nil {
				c.o.Panicked(p, debug.Stack())
			}
			s.Abort(errPanic)
		}
	}()
	c.handler(s)
}

// A ServerStream is a request of a client's, and its response.
//
// One goroutine at a time may call Read, Buffered, Whole and Trailer, and
// another at the same time Inform, Respond, Write, Flush and End. Refuse, Finish,
// Patient, Abort and Notify may be called by any, any time.
type ServerStream struct {
	stream
	request message.Request

	// Guarded by the connection's mu.
	pace      pace // of the body
	dismissal dismissal
	responded bool        // Respond was called
	gone      func(error) // see Notify
	goneFor   error       // why the client has gone; nil: it has not
	telling   bool        // gone is being called
}

// Request returns the request's head. It is the caller's until its handler
// returns.
func (s *ServerStream) Request() *message.Request { return &s.request }

// Whole reports whether the rest of the body is here already, and little.
func (s *ServerStream) Whole() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.recvEnd && s.queue.little()
}

// Refuse ends the reading: the rest of the body is not wanted. A Read that waits
// returns an error, and so does every later one that is not io.EOF already.
func (s *ServerStream) Refuse() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.recvEnd && !s.queue.waiting() {
		return
	}
	s.refused = true
	s.queue.drop()
	s.readable.Broadcast()
}

// Inform sends an interim response at once.
func (s *ServerStream) Inform(r *message.Response) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.awaitRoomLocked(); err != nil {
		return err
	}
	s.c.encoder.response(r, true)
	s.c.out.block(s.id, s.c.encoder.buf.b, false)
	s.c.out.kick()
	return nil
}

// Respond begins the final response; with end it is complete, and sent at once.
// Else it may wait for Flush or End.
func (s *ServerStream) Respond(r *message.Response, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.awaitRoomLocked(); err != nil {
		return err
	}
	c.encoder.response(r, s.request.Method == "HEAD")
	s.latest = c.out.block(s.id, c.encoder.buf.b, end)
	c.abuse.head()
	s.responded = true
	if end {
		s.sentLocked()
		return nil
	}
	s.sendLeft = r.Length
	return nil
}

// Finish ends a response in the middle of its body, with a trailer that says why:
// a Write that waits fails, and so does whatever else would follow. It reports
// whether the client sees the response end well, by this or already: not if
// Respond was not called, a body of a declared length is not whole, or the
// stream was reset.
func (s *ServerStream) Finish(trailer message.Fields) bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.err != nil || !s.responded:
		return false
	case s.sendEnd:
		return true
	case s.sendLeft > 0:
		return false
	}
	c.encoder.trailer(trailer)
	c.out.block(s.id, c.encoder.buf.b, true)
	s.sentLocked()
	s.writable.Broadcast()
	return true
}

// Notify has gone called, from any goroutine and at most once, if the client
// goes before the handler returns: it resets the stream, or its connection
// ends. It is called at once if the client has gone already. Nil takes it back:
// when Notify(nil) returns, gone is not running and will not be called.
func (s *ServerStream) Notify(gone func(cause error)) {
	s.c.mu.Lock()
	s.gone = gone
	for gone == nil && s.telling {
		s.readable.Wait()
	}
	cause := s.goneFor
	s.c.mu.Unlock()
	if gone != nil && cause != nil {
		s.tellGone(cause)
	}
}

// tellGone calls what Notify was given, once.
func (s *ServerStream) tellGone(cause error) {
	s.c.mu.Lock()
	s.goneFor = cause
	gone := s.gone
	s.gone = nil
	s.telling = gone != nil
	s.c.mu.Unlock()
	if gone == nil {
		return
	}
	gone(cause)
	s.c.mu.Lock()
	s.telling = false
	s.readable.Broadcast()
	s.c.mu.Unlock()
}
