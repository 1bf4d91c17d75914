package http2

import (
	"errors"
	"net"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// ErrNoExtendedConnect reports that the server takes no CONNECT with a
// protocol. Nothing was sent.
var ErrNoExtendedConnect = errors.New("http2: the server takes no extended CONNECT")

// ErrHeadTooLarge reports a request whose head is larger than the server takes.
// Nothing was sent.
var ErrHeadTooLarge = message.ErrHeadTooLarge

const (
	lastStream = 1<<30 - 1 // after which a connection is retired, long before its numbers are used up
	maxInterim = 64        // interim responses to one request
)

// A ClientConn is a connection to an upstream.
type ClientConn struct {
	conn

	// Guarded by mu.
	open     int  // streams between Open and their end
	retired  bool // no stream is opened any more
	wentAway bool // the server said that it serves none of those not sent yet
}

// NewClientConn returns a ClientConn that owns nc. Run must be called; streams
// may be opened before.
func NewClientConn(nc net.Conn, o Options) *ClientConn {
	c := &ClientConn{}
	c.init(nc, nil, o)
	c.client = c
	c.in.block.ofServer = true
	c.greet(h2.ClientPreface, h2.Setting{ID: h2.SettingEnablePush, Val: 0})
	return c
}

// Run runs the connection until it is at its end: it was closed, or retired or
// idle and without streams, or it failed. It returns when the connection is
// closed and none of its goroutines is left; nil if it ended as it should.
func (c *ClientConn) Run() error { return c.run(nil) }

// Retire lets the connection take no further streams, and closes it when those
// it has are over. It may be called repeatedly, by any goroutine.
func (c *ClientConn) Retire() {
	c.mu.Lock()
	c.retireLocked()
	c.mu.Unlock()
	c.changed()
}

func (c *ClientConn) retireLocked() {
	if !c.retired {
		c.retired = true
		c.checkIdleLocked()
	}
}

// Open returns a stream for one exchange, which must end with Done; nil if the
// connection takes none now.
func (c *ClientConn) Open() *ClientStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roomLocked() <= 0 {
		return nil
	}
	c.open++
	s := &ClientStream{}
	s.init(&c.conn, 0)
	s.client = s
	return s
}

// Room returns how many streams can be opened now.
func (c *ClientConn) Room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.roomLocked(), 0)
}

func (c *ClientConn) roomLocked() int {
	if c.err != nil || c.out.err != nil || c.retired || c.live.suspect {
		return 0
	}
	return min(c.o.MaxStreams, c.peer.maxStreams) - c.open
}

// Streams returns how many streams are open.
func (c *ClientConn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// Closed reports whether the server has said that it allows no streams at all. It
// may allow some later.
func (c *ClientConn) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.retired && c.peer.maxStreams == 0
}

// Takes reports whether the connection may ever take another stream.
func (c *ClientConn) Takes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && c.out.err == nil && !c.retired
}

// Err returns why the connection is at its end; nil if it is not.
func (c *ClientConn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

func (c *ClientConn) changed() {
	if c.o.Changed != nil {
		c.o.Changed()
	}
}

func (c *ClientConn) tickLocked(now int64) []ended {
	if c.o.MaxAge > 0 && now > int64(c.o.MaxAge) {
		c.retireLocked()
	}
	return nil
}

// onBlockLocked takes the block as the response's head or trailer.
func (s *ClientStream) onBlockLocked(end bool) *Error {
	if s.answered {
		return s.onTrailerLocked(end)
	}
	return s.onHeadLocked(end)
}

// unansweredLocked reports whether nothing of a response has come.
func (s *stream) unansweredLocked() bool {
	return s.client != nil && !s.client.answered && s.client.interim == 0
}

func (c *ClientConn) onGoAway(f *h2.GoAwayFrame) {
	c.mu.Lock()
	var gone []ended
	for _, s := range c.streams {
		if s.id > f.LastStreamID {
			err := &Error{Code: f.ErrCode, Remote: true, Connection: true, Unprocessed: s.unansweredLocked()}
			s.failLocked(err)
			gone = append(gone, ended{s, err})
		}
	}
	c.wentAway = true
	c.retireLocked()
	c.mu.Unlock()
	c.tell(gone)
	c.changed()
}

// A ClientStream is a request to an upstream, and its response.
//
// One goroutine at a time may call Connects, Send, Roomy, Write, Flush and End, and
// another at the same time Receive, Read, Buffered and Trailer. Abort may be
// called by any, any time.
type ClientStream struct {
	stream

	// Guarded by the connection's mu.
	heads    []message.Response // that wait to be received
	interim  int                // heads of interim responses that have come
	answered bool               // the final head has come
	isHead   bool               // the request is a HEAD
	head     token              // the request's
	sentAt   int64              // when it was put in the outbox
	done     bool
}

// Connects waits for the server's settings, and reports whether it takes a
// CONNECT with a protocol. It returns at once if the stream was aborted.
func (s *ClientStream) Connects() bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.in.settled.Load() && c.err == nil && s.err == nil {
		c.out.room.join(&s.stream)
		s.waitLocked()
	}
	s.leaveTurns()
	return c.peer.extendedConnect
}

// Send begins the request; with end it is complete and sent at once. Else it
// may wait for Flush or End.
func (s *ClientStream) Send(r *message.Request, end bool) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.Protocol != "" && !c.peer.extendedConnect && c.err == nil:
		return ErrNoExtendedConnect
	case c.peer.maxHeaderBytes < 1<<32 && sizeOf(r) > c.peer.maxHeaderBytes:
		return ErrHeadTooLarge
	}
	if err := s.awaitRoomLocked(); err != nil {
		return err
	}
	if c.err != nil {
		err := *c.err
		err.Unprocessed = true
		return &err
	}
	if c.out.err != nil {
		return &Error{Connection: true, Unprocessed: true, Err: c.out.err}
	}
	if c.client.wentAway || c.lastID >= lastStream {
		return &Error{Code: h2.ErrCodeRefusedStream, Connection: true, Unprocessed: true, Reason: "the connection takes no more"}
	}
	if c.lastID == 0 {
		c.lastID = 1
	} else {
		c.lastID += 2
	}
	if c.lastID >= lastStream {
		c.client.retired = true
	}
	s.id = c.lastID
	s.isHead = r.Method == "HEAD"
	s.sendWindow = c.peer.window
	c.streams[s.id] = &s.stream
	c.encoder.request(r, end)
	s.head = c.out.block(s.id, c.encoder.buf.b, end)
	s.latest, s.sentAt = s.head, c.now()
	if end {
		s.sentLocked()
		return nil
	}
	s.sendLeft = r.Length
	return nil
}

// sizeOf returns the size of a request's head as RFC 9113, section 6.5.2 counts
// it, or a little more.
func sizeOf(r *message.Request) int64 {
	const each, framing = 32, 6*32 + 64 // pseudo-header fields and Content-Length
	n := framing + len(r.Method) + len(r.Scheme) + len(r.Target) + len(r.Authority) + len(r.Protocol)
	for i := range r.Fields {
		n += each + len(r.Fields[i].Name) + len(r.Fields[i].Value)
	}
	return int64(n)
}

// onHeadLocked takes the block as a head of the response.
func (s *ClientStream) onHeadLocked(end bool) *Error {
	b := &s.c.in.block
	if b.tooLarge {
		return malformed("a head larger than is allowed")
	}
	var r message.Response
	if fault := b.response(&r, end, s.isHead); fault != "" {
		return malformed(fault)
	}
	if r.Interim() {
		if s.interim++; s.interim > maxInterim {
			return &Error{Code: h2.ErrCodeEnhanceYourCalm, Reason: "too many interim responses"}
		}
	}
	s.heads = append(s.heads, r)
	s.notifyLater()
	if r.Interim() {
		return nil
	}
	s.answered = true
	s.left = r.Length
	if end {
		s.left = -1
		return s.endedLocked()
	}
	return nil
}

// Receive waits for the next head of the response: each interim one, then the
// final one.
func (s *ClientStream) Receive(into *message.Response) error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for {
		switch {
		case s.readErr != nil:
			return s.readErr
		case len(s.heads) > 0:
			*into = s.heads[0]
			s.heads = s.heads[1:]
			return nil
		case s.answered:
			return errOver
		}
		s.readable.Wait()
	}
}

// Done ends the exchange: no other call is running, and none follows. If the
// request was not sent or the response not read to its end, it is reset.
func (s *ClientStream) Done() {
	c := s.c
	c.mu.Lock()
	if s.done {
		c.mu.Unlock()
		return
	}
	s.done = true
	code := h2.ErrCodeCancel
	if s.recvEnd {
		code = h2.ErrCodeNo // all is answered; the rest of the request is of no use
	}
	s.suspectLocked()
	s.resetLocked(code, errOver)
	s.overLocked(errOver)
	c.mu.Unlock()
	c.client.changed()
}
