package http2

import (
	"io"
	"net"
	"runtime/debug"
	"time"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A ServerConn is a connection from a client.
type ServerConn struct {
	conn
	handler    func(*ServerStream)
	running    int        // running handlers, guarded by mu: a reset stream counts until its handler returns
	memory     int        // bytes that their streams hold, guarded by mu: see Options.MaxMemory
	workerPool workerPool // goroutines that call handler
	taken      int        // streams accepted so far, guarded by mu
	waiting    int        // Reads waiting for a body, guarded by mu

	responses socket.Budget // see ServerStream.Budget

	dismissed int // streams waiting to be reset by dismissLocked, guarded by mu

	// The progress of a shutdown, guarded by mu.
	drainingSince int64 // when it began, or 0
	announced     bool  // the last stream was announced in GOAWAY
}

// drainPing is the payload of the PING after the first GOAWAY of a shutdown.
var drainPing = [8]byte{'d', 'r', 'a', 'i', 'n'}

// drainTimeout bounds the wait for the answer to drainPing.
const drainTimeout = time.Second

// NewServerConn returns a ServerConn that owns nc. early holds bytes already
// read from nc. The caller must call Serve.
func NewServerConn(nc net.Conn, early []byte, o Options) *ServerConn {
	c := &ServerConn{}
	c.init(nc, early, o, 100)
	c.server = c
	c.workerPool.wanted.L = &c.mu
	settings := []h2.Setting{{ID: h2.SettingMaxConcurrentStreams, Val: uint32(c.o.MaxStreams)}}
	if o.ExtendedConnect {
		settings = append(settings, h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1})
	}
	c.queuePreface("", settings...)
	return c
}

// Serve serves the connection until it ends, and calls handler in its own
// goroutine for each stream. It returns when the connection is closed and every
// handler has returned. A normal end returns nil.
//
// The exchange is over when handler returns. A stream that has not ended by
// then is reset. If the response is complete and the client still sends, the
// reset says that the rest is not needed.
//
// If Serve returns ErrParked, it must be called again, from any goroutine.
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

// Running returns how many streams are being served.
func (c *ServerConn) Running() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running
}

// Over reports whether the connection has ended. Serve may still have to close
// it.
func (c *ServerConn) Over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// Shutdown drains the connection: GOAWAY tells the client to open no more streams,
// and those it opened before it knew are served. Then the connection closes and
// Serve returns. It may be called repeatedly, from any goroutine.
func (c *ServerConn) Shutdown() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutdownLocked()
}

func (c *ServerConn) shutdownLocked() {
	if c.drainingSince != 0 || c.err != nil {
		return
	}
	c.drainingSince = max(c.now(), 1)
	c.out.goAway(maxWindow, h2.ErrCodeNo, "")
	c.out.ping(drainPing)
}

// goAwayLocked is the second half of a shutdown. By now the client has had time
// to see the first GOAWAY, so only streams it has already opened are served.
func (c *ServerConn) goAwayLocked() {
	if c.drainingSince == 0 || c.announced || c.err != nil {
		return
	}
	c.announced = true
	c.out.goAway(c.lastID, h2.ErrCodeNo, "")
	c.checkIdleLocked()
}

// drained reports whether the connection ends with its last stream.
func (c *ServerConn) drained() bool { return c.announced }

func (c *ServerConn) tickLocked(now int64) []streamEnd {
	if c.o.MaxAge > 0 && now > int64(c.o.MaxAge) {
		c.shutdownLocked()
	}
	if c.drainingSince != 0 && now-c.drainingSince > int64(drainTimeout) {
		c.goAwayLocked()
	}
	c.expireBodiesLocked(now)
	c.workerPool.releaseLocked()
	c.parkLocked(now)
	return nil
}

// readPreface reads the client's connection preface.
func (c *ServerConn) readPreface() *Error {
	var p [len(h2.ClientPreface)]byte
	if _, err := io.ReadFull(c.in.reader, p[:]); err != nil {
		return c.in.readError(err)
	}
	if string(p[:]) != h2.ClientPreface {
		return broken(h2.ErrCodeProtocol, "no connection preface")
	}
	return nil
}

// onBlockLocked handles the block as the trailer of s, or as the head of a new
// request if s is nil.
func (c *ServerConn) onBlockLocked(s *stream, id uint32, end bool) *Error {
	if s != nil {
		return s.onTrailerLocked(end)
	}
	c.lastID = id
	start, streamErr := c.openLocked(id, end)
	if start != nil {
		c.in.tasks = append(c.in.tasks, task{stream: start})
	}
	return streamErr
}

// openLocked opens a stream, or returns why it cannot.
func (c *ServerConn) openLocked(id uint32, end bool) (*ServerStream, *Error) {
	// A client may know that a stream is over while its handler does not. So
	// handlers have a limit of their own.
	if len(c.streams) >= c.o.MaxStreams || c.running >= 2*c.o.MaxStreams {
		return nil, &Error{Code: h2.ErrCodeRefusedStream, Reason: "more streams than allowed"}
	}
	memory := c.o.StreamMemory + c.in.block.size + int(max(int64(c.o.UnreadMemory)-c.peer.window, 0))
	if c.memory+memory > c.o.MaxMemory && c.running > 0 {
		return nil, &Error{Code: h2.ErrCodeRefusedStream, Reason: "the connection's streams hold too much memory"}
	}
	if c.in.block.tooLarge && c.in.block.fault == "" {
		c.encoder.response(&message.Response{Status: 431}, false)
		c.out.block(id, c.encoder.buf, true)
		c.out.startSending()
		if !end {
			s := &ServerStream{}
			s.init(&c.conn, id)
			s.server, s.sendEnd = s, true
			c.streams[id] = &s.stream
			s.dismissLocked()
		}
		return nil, &Error{Code: h2.ErrCodeNo, Reason: "the header is too large"}
	}
	s := &ServerStream{memory: memory}
	if fault := c.in.block.request(&s.request, end, c.o.ExtendedConnect); fault != "" {
		return nil, malformed(fault)
	}
	s.init(&c.conn, id)
	s.server = s
	s.recvEnd = end
	if s.left = s.request.Length; s.left == 0 && !end {
		// The body may still turn out not to be empty. Until its end arrives,
		// the request must not be forwarded as complete.
		s.request.Length = -1
	}
	c.streams[id] = &s.stream
	c.running++
	c.memory += memory
	if c.taken++; c.taken == c.o.MaxRequests {
		c.shutdownLocked()
	}
	return s, nil
}

// chargeLocked records that the stream holds n bytes more. It reports false, and
// records nothing, if the connection's streams would then hold too much.
func (s *ServerStream) chargeLocked(n int) bool {
	c := s.c.server
	if n > 0 && c.memory+n > c.o.MaxMemory && c.running > 1 {
		return false
	}
	c.memory += n
	s.memory += n
	return true
}

// handle calls the handler for a stream, and then ends the stream.
func (c *ServerConn) handle(s *ServerStream) {
	c.call(s)
	s.Notify(nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.memory -= s.memory
	if s.sendEnd && !s.closed { // section 8.1: the response is complete; the rest of the request is not needed
		s.dismissLocked()
	} else {
		s.resetLocked(h2.ErrCodeInternal, errOver)
		s.overLocked(errOver)
	}
	c.checkIdleLocked()
}

// call calls the handler. A panic ends only the stream.
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

// A ServerStream is a request from a client, and its response.
//
// One goroutine at a time may call Read, AwaitBody, Buffered, Whole and Trailer. A second
// may call Inform, Respond, Write, Flush and End at the same time. Refuse,
// Finish, NoBodyTimeout, Abort and Notify may be called from any goroutine at any
// time.
type ServerStream struct {
	stream
	request message.Request
	memory  int // see Options.MaxMemory

	// Guarded by the connection's mu.
	bodyWait   bodyWait // the wait for the body
	onReadable func()   // see AwaitBody
	dismissal  dismissal
	responded  bool        // Respond was called
	onGone     func(error) // see Notify
	goneCause  error       // why the client has gone, or nil
	notifying  bool        // gone is running
}

// Request returns the request's head. The caller owns it until its handler
// returns.
func (s *ServerStream) Request() *message.Request { return &s.request }

// Whole reports whether the rest of the body has arrived and is small.
func (s *ServerStream) Whole() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.recvEnd && s.queue.isSmall()
}

// Refuse discards the rest of the body. A waiting Read returns an error, and so
// does every later one unless the body has ended.
func (s *ServerStream) Refuse() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.recvEnd && !s.queue.hasUnread() {
		return
	}
	s.refused = true
	s.queue.drop()
	s.wakeReaderLocked()
}

// Inform sends an interim response at once.
func (s *ServerStream) Inform(r *message.Response) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if err := s.awaitRoomLocked(); err != nil {
		return err
	}
	s.c.encoder.response(r, true)
	s.c.out.block(s.id, s.c.encoder.buf, false)
	s.c.out.startSending()
	return nil
}

// Respond sends the head of the final response. If end is set, the response is
// complete and leaves at once. Otherwise the head may wait for Flush or End.
func (s *ServerStream) Respond(r *message.Response, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.awaitRoomLocked(); err != nil {
		return err
	}
	c.encoder.response(r, s.request.Method == "HEAD")
	s.latest = c.out.block(s.id, c.encoder.buf, end)
	c.abuse.head()
	s.responded = true
	if end {
		s.sentLocked()
		return nil
	}
	s.sendLeft = r.Length
	return nil
}

// Finish ends a response in the middle of its body, with a trailer that says
// why. A waiting Write fails, and so does every later call that sends.
//
// It reports whether the client sees a normal end of the response. That is
// false if Respond was not called, a body of declared length is incomplete, or
// the stream was reset.
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
	c.out.block(s.id, c.encoder.buf, true)
	s.sentLocked()
	s.wakeWriterLocked()
	return true
}

// Notify registers gone to be called if the client disappears before the
// handler returns: the client resets the stream, or its connection ends. gone
// is called at most once, from any goroutine, and immediately if the client has
// already disappeared. Nil unregisters: when Notify(nil) returns, gone is not
// running and will not be called.
func (s *ServerStream) Notify(gone func(cause error)) {
	s.c.mu.Lock()
	s.onGone = gone
	for gone == nil && s.notifying {
		s.readable.Wait()
	}
	cause := s.goneCause
	s.c.mu.Unlock()
	if gone != nil && cause != nil {
		s.notifyGone(cause)
	}
}

// notifyGone calls the function registered by Notify, once.
func (s *ServerStream) notifyGone(cause error) {
	s.c.mu.Lock()
	s.goneCause = cause
	gone := s.onGone
	s.onGone = nil
	s.notifying = gone != nil
	s.c.mu.Unlock()
	if gone == nil {
		return
	}
	gone(cause)
	s.c.mu.Lock()
	s.notifying = false
	s.readable.Broadcast()
	s.c.mu.Unlock()
}
