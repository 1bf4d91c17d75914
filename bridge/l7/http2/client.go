package http2

import (
	"errors"
	"net"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// ErrNoExtendedConnect reports that the server does not support CONNECT with a
// protocol. Nothing was sent.
var ErrNoExtendedConnect = errors.New("http2: the server does not support extended CONNECT")

// ErrHeadTooLarge reports that a request's head exceeds the server's limit.
// Nothing was sent.
var ErrHeadTooLarge = message.ErrHeadTooLarge

const (
	lastStream = 1<<30 - 1 // retire the connection after this ID, long before IDs run out
	maxInterim = 64        // interim responses to one request

	// maxUnread bounds the bytes of interim responses that Receive has not returned
	// yet. Its caller may be waiting for a client that does not read.
	maxUnread = 64 << 10
)

// A ClientConn is a connection to an upstream.
type ClientConn struct {
	conn

	// Guarded by mu.
	open       int  // streams between Open and their end
	retired    bool // no new streams
	roomGained bool // there was no room when a stream ended; Changed is called by Done
	gotGoAway  bool // GOAWAY received: the server serves no requests sent from now on
}

// NewClientConn returns a ClientConn that owns nc. The caller must call Run; it
// may open streams before.
func NewClientConn(nc net.Conn, o Options) *ClientConn {
	c := &ClientConn{}
	c.init(nc, nil, o, 250)
	c.client = c
	c.in.block.ofServer = true
	c.queuePreface(h2.ClientPreface, h2.Setting{ID: h2.SettingEnablePush, Val: 0})
	return c
}

// Run serves the connection until it ends: it was closed, it failed, or it has
// no streams and was retired or idle too long. It returns once the connection
// is closed and all its goroutines have ended. A normal end returns nil.
func (c *ClientConn) Run() error { return c.run(nil) }

// Retire stops new streams, and closes the connection when the open ones have
// ended. It may be called repeatedly, from any goroutine.
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

// Open returns a stream for one exchange, which must end with Done. It returns
// nil if the connection cannot open one now.
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
	if !c.canOpenLocked() || c.live.suspect {
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

// Closed reports whether the server currently allows no streams. It may allow
// some later.
func (c *ClientConn) Closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && !c.retired && c.peer.maxStreams == 0
}

// CanOpen reports whether the connection may ever open another stream.
func (c *ClientConn) CanOpen() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.canOpenLocked()
}

func (c *ClientConn) canOpenLocked() bool { return c.err == nil && c.out.err == nil && !c.retired }

// Err returns why the connection ended, or nil if it has not.
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

func (c *ClientConn) tickLocked(now int64) []streamEnd {
	if c.o.MaxAge > 0 && now > int64(c.o.MaxAge) {
		c.retireLocked()
	}
	return nil
}

// onBlockLocked handles a field section: the response's head or trailer.
func (s *ClientStream) onBlockLocked(end bool) *Error {
	if s.answered {
		return s.onTrailerLocked(end)
	}
	return s.onHeadLocked(end)
}

// unansweredLocked reports whether no part of a response was received.
func (s *stream) unansweredLocked() bool {
	return s.client != nil && !s.client.answered && s.client.interim == 0
}

func (c *ClientConn) onGoAway(f *h2.GoAwayFrame) {
	c.mu.Lock()
	var ends []streamEnd
	for _, s := range c.streams {
		if s.id > f.LastStreamID {
			err := &Error{Code: f.ErrCode, Remote: true, Connection: true, Unprocessed: s.unansweredLocked()}
			s.failLocked(err)
			ends = append(ends, streamEnd{s, err})
		}
	}
	c.gotGoAway = true
	c.retireLocked()
	c.mu.Unlock()
	c.notifyEnds(ends)
	c.changed()
}

// A ClientStream is a request to an upstream, and its response.
//
// One goroutine at a time may call Connects, Send, HasRoom, Write, Flush and End.
// A second may call Receive, Read, Buffered and Trailer at the same time. Abort
// may be called from any goroutine at any time.
type ClientStream struct {
	stream

	// Guarded by the connection's mu.
	heads    []message.Response // received, but not yet returned by Receive
	unread   int                // their size, as defined in RFC 9113, section 6.5.2
	interim  int                // number of interim responses received
	answered bool               // the final head was received
	isHead   bool               // the request is a HEAD
	head     token              // the request's HEADERS frame
	sentAt   int64              // when head was queued
	done     bool
}

// Connects waits for the server's settings, and reports whether it supports
// CONNECT with a protocol. It returns at once if the stream is aborted.
func (s *ClientStream) Connects() bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.in.gotSettings.Load() && c.err == nil && s.err == nil {
		c.out.room.join(&s.stream)
		s.waitLocked()
	}
	s.leaveQueue()
	return c.peer.extendedConnect
}

// Send sends the head of the request. If end is set, the request is complete
// and leaves at once. Otherwise the head may wait for Flush or End.
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
	if c.client.gotGoAway || c.lastID >= lastStream {
		return &Error{Code: h2.ErrCodeRefusedStream, Connection: true, Unprocessed: true, Reason: "the connection accepts no more streams"}
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
	s.head = c.out.block(s.id, c.encoder.buf, end)
	s.latest, s.sentAt = s.head, c.now()
	if end {
		s.sentLocked()
		return nil
	}
	s.sendLeft = r.Length
	return nil
}

// sizeOf returns the size of a request's head as defined in RFC 9113, section
// 6.5.2, or a little more.
func sizeOf(r *message.Request) int64 {
	const each, framing = 32, 6*32 + 64 // pseudo-header fields and Content-Length
	n := framing + len(r.Method) + len(r.Scheme) + len(r.Target) + len(r.Authority) + len(r.Protocol)
	for i := range r.Fields {
		n += each + len(r.Fields[i].Name) + len(r.Fields[i].Value)
	}
	return int64(n)
}

// onHeadLocked handles a head of the response, interim or final.
func (s *ClientStream) onHeadLocked(end bool) *Error {
	b := &s.c.in.block
	if b.tooLarge {
		return malformed("the header is too large")
	}
	var r message.Response
	if fault := b.response(&r, end, s.isHead); fault != "" {
		return malformed(fault)
	}
	if r.Interim() {
		if s.interim++; s.interim > maxInterim {
			return &Error{Code: h2.ErrCodeEnhanceYourCalm, Reason: "too many interim responses"}
		}
		if len(s.heads) > 0 && s.unread+b.size > maxUnread {
			return &Error{Code: h2.ErrCodeEnhanceYourCalm, Reason: "interim responses that are too large together"}
		}
	}
	left := r.Length
	if r.Declared == 0 && !end && mayHaveBody(r.Status, s.isHead) {
		// A trailer or a reset may follow. Until the stream ends, the response
		// must not be forwarded as complete.
		r.Length = -1
	}
	s.heads = append(s.heads, r)
	s.unread += b.size
	s.notifyLater()
	if r.Interim() {
		return nil
	}
	s.answered = true
	s.left = left
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
			s.heads[0] = message.Response{}
			if s.heads = s.heads[1:]; len(s.heads) == 0 {
				s.heads, s.unread = nil, 0
			}
			return nil
		case s.answered:
			return errOver
		}
		s.readable.Wait()
	}
}

// Done ends the exchange. No other call may be running or follow. If the
// request was not sent completely, or the response not read completely, Done
// resets the stream.
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
		code = h2.ErrCodeNo // the response is complete; the rest of the request is not needed
	}
	s.suspectLocked()
	s.resetLocked(code, errOver)
	s.overLocked(errOver)
	changed := c.client.roomGained || !c.client.canOpenLocked()
	c.client.roomGained = false
	c.mu.Unlock()
	if changed {
		c.client.changed()
	}
}
