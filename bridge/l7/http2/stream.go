package http2

import (
	"io"
	"sync"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A stream is what both roles of a stream have in common. All of it is guarded
// by the connection's mu.
type stream struct {
	c      *conn
	id     uint32        // 0: none yet (client)
	server *ServerStream // this or client is nil
	client *ClientStream

	closed bool  // it is none of the connection's any more
	err    error // why nothing can be sent; nil: it can

	// What comes in.
	readable sync.Cond
	queue    queue
	viewed   int            // bytes of the view that Read returned last
	recvEnd  bool           // the peer has sent all it will
	readErr  error          // why it is not whole
	refused  bool           // nobody wants the rest
	left     int64          // of the body as its length was declared; -1: it was not
	window   int            // what the peer may still send
	size     int            // of the window, when all of it is given back
	owed     int            // of the window: taken on, and not yet given back
	taken    int64          // bytes of the body that Read has returned
	trailer  message.Fields // once recvEnd
	notified bool           // it is in c.in.arrived; the reading goroutine's

	// What goes out.
	writable     sync.Cond
	sendWindow   int64
	sendEnd      bool  // all is sent, or in out
	sendLeft     int64 // of the body as its length was declared; -1: it was not
	latest       token // the stream's latest frame
	blockedSince int64 // when a Write began to wait; 0: none does
	waitsIn      *turns
	behind       *stream // in waitsIn
}

func (s *stream) init(c *conn, id uint32) {
	s.c, s.id = c, id
	s.readable.L, s.writable.L = &c.mu, &c.mu
	s.left, s.sendLeft = -1, -1
	s.window, s.size = firstWindow, firstWindow
	s.sendWindow = c.peer.window
}

// Read waits for bytes of the body and returns them: a view that is valid until
// the next Read, by which the peer may send as many more. At the end of the
// body it returns io.EOF; any other error means that the body is not whole.
func (s *stream) Read() ([]byte, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.giveBackLocked(s.viewed)
	s.viewed = 0
	s.awaitBodyLocked()
	switch {
	case s.readErr != nil:
		return nil, s.readErr
	case s.refused:
		return nil, errRefused
	}
	if p := s.queue.next(); p != nil {
		s.viewed = len(p)
		s.taken += int64(len(p))
		return p, nil
	}
	return nil, io.EOF
}

// Buffered reports whether Read would return without waiting.
func (s *stream) Buffered() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.bufferedLocked()
}

func (s *stream) bufferedLocked() bool {
	return s.queue.waiting() || s.recvEnd || s.readErr != nil || s.refused
}

// Trailer returns the trailer fields, once Read has returned io.EOF.
func (s *stream) Trailer() message.Fields {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.trailer
}

// giveBackLocked gives the peer n bytes of the stream's window back, a good
// part of it at a time. If the reader has kept up, the window grows.
func (s *stream) giveBackLocked(n int) {
	if n == 0 || s.recvEnd || s.closed || s.refused {
		return
	}
	s.owed += n
	if s.owed < s.size/2 {
		return
	}
	c := s.c
	increment := s.owed
	if s.size < largestWindow && c.grown+s.size <= maxGrowth && !s.queue.waiting() {
		increment += s.size
		c.grown += s.size
		s.size *= 2
	}
	s.owed = 0
	s.window += increment
	c.out.windowUpdate(s.id, increment)
}

// Write sends bytes of the body. They are the caller's again when it returns,
// and may wait for Flush or End. It blocks while the peer takes nothing.
func (s *stream) Write(p []byte) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sendLeft >= 0 && int64(len(p)) > s.sendLeft && s.err == nil {
		return s.brokenLengthLocked()
	}
	for len(p) > 0 {
		if err := s.awaitTurnLocked(); err != nil {
			return err
		}
		whole := min(len(p), maxFrame)
		n := min(whole, int(s.sendWindow), int(c.sendWindow))
		s.latest = c.out.data(s.id, p[:n], false)
		p = p[n:]
		s.sendWindow -= int64(n)
		c.sendWindow -= int64(n)
		if s.sendLeft >= 0 {
			s.sendLeft -= int64(n)
		}
		c.abuse.sent(n, n < whole)
		if c.out.full() {
			c.out.kick()
		}
		c.out.turn.wake()
	}
	return nil
}

// Roomy reports whether as much as a front calls little can be written without
// waiting. It may be otherwise by the time that it is written.
func (s *stream) Roomy() bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.sendWindow >= little && c.sendWindow >= little && !c.out.full() && c.out.turn.head == nil
}

// awaitTurnLocked waits until a frame of the body may be sent. Streams that are
// not held up by their own window take turns, a frame each. A time limit counts
// only while the peer keeps a window shut, and from the last byte that it let
// through: waiting for others to be served costs a stream nothing.
func (s *stream) awaitTurnLocked() error {
	c := s.c
	defer s.blockLocked(false)
	for {
		shut := s.sendWindow <= 0
		switch {
		case s.sendErrLocked() != nil:
			s.leaveTurns()
			c.out.turn.wake()
			return s.sendErrLocked()
		case shut:
			s.leaveTurns()
			c.out.turn.wake()
		case c.out.full() || c.sendWindow <= 0 || c.out.turn.head != nil && c.out.turn.head != s:
			if c.sendWindow <= 0 && (c.shutSince == 0 || c.out.turn.head == nil) {
				c.shutSince = max(c.now(), 1)
			}
			c.out.turn.join(s)
		default:
			s.leaveTurns()
			return nil
		}
		s.blockLocked(shut)
		c.out.kick()
		s.writable.Wait()
	}
}

// awaitRoomLocked waits until a head or trailer may be sent.
func (s *stream) awaitRoomLocked() error {
	c := s.c
	for {
		switch {
		case s.sendErrLocked() != nil:
			s.leaveTurns()
			return s.sendErrLocked()
		case c.out.full():
			c.out.room.join(s)
		default:
			s.leaveTurns()
			return nil
		}
		s.waitLocked()
	}
}

func (s *stream) waitLocked() {
	s.c.out.kick()
	s.writable.Wait()
}

// blockLocked says whether the stream waits for the peer to open its window.
func (s *stream) blockLocked(blocked bool) {
	switch {
	case blocked && s.blockedSince == 0:
		s.blockedSince = max(s.c.now(), 1)
		s.c.blocked++
	case !blocked && s.blockedSince != 0:
		s.blockedSince = 0
		s.c.blocked--
	}
}

// stalledLocked resets the streams whose peer has kept a window shut for too long,
// their own or the connection's. c.mu is held.
func (c *conn) stalledLocked(now int64) (gone []ended) {
	past := func(since int64) bool { return since != 0 && now-since > int64(c.o.StallTimeout) }
	shut := past(c.shutSince)
	if c.blocked == 0 && !shut {
		return nil
	}
	for _, s := range c.streams {
		if past(s.blockedSince) || shut && s.waitsIn == &c.out.turn {
			why := &Error{Code: h2.ErrCodeCancel, Reason: "the peer kept its window shut for too long"}
			gone = append(gone, s.resetLocked(why.Code, why))
		}
	}
	if shut {
		c.shutSince = 0
	}
	return gone
}

// sendErrLocked returns why nothing more can be sent; nil: it can.
func (s *stream) sendErrLocked() error {
	switch {
	case s.err != nil:
		return s.err
	case s.sendEnd:
		return errOver
	case s.c.out.err != nil:
		return &Error{Connection: true, Unprocessed: s.id == 0, Err: s.c.out.err}
	}
	return nil
}

// Flush sends whatever still waits.
func (s *stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.out.kick()
	return s.err
}

// End completes the body, and sends everything.
func (s *stream) End(trailer message.Fields) error {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.awaitRoomLocked(); err != nil {
		return err
	}
	switch {
	case s.sendLeft > 0:
		return s.brokenLengthLocked()
	case len(trailer) > 0:
		c.encoder.trailer(trailer)
		s.latest = c.out.block(s.id, c.encoder.buf.b, true)
	case !c.out.endStream(s.latest):
		c.out.data(s.id, nil, true)
	}
	s.sentLocked()
	return nil
}

// sentLocked is for when the last of a message is in out.
func (s *stream) sentLocked() {
	s.sendEnd = true
	s.c.out.kick()
	s.closeLocked()
}

// brokenLengthLocked resets a stream whose body is not as long as its head said.
func (s *stream) brokenLengthLocked() error {
	err := &Error{Code: h2.ErrCodeInternal, Reason: "the body that was sent is not of the length that was said"}
	s.resetLocked(err.Code, err)
	return err
}

// endedLocked is for when the peer has sent its last. It returns what is wrong
// if that came too early.
func (s *stream) endedLocked() *Error {
	if s.left > 0 {
		return malformed("a body shorter than its Content-Length")
	}
	s.recvEnd = true
	s.notifyLater()
	s.closeLocked()
	return nil
}

// closeLocked closes the stream if both sides have sent their last.
func (s *stream) closeLocked() {
	if s.recvEnd && s.sendEnd && !s.closed {
		s.c.abuse.completed()
		s.removeLocked()
	}
}

// removeLocked takes the stream out of the connection.
func (s *stream) removeLocked() {
	c := s.c
	s.closed = true
	c.grown -= s.size - firstWindow
	delete(c.streams, s.id)
	if s.client != nil {
		c.client.open--
	} else {
		s.server.endDismissalLocked()
	}
	c.checkIdleLocked()
}

// failLocked ends the stream because of err: whatever call is waiting returns.
// A response that has come whole is still good.
func (s *stream) failLocked(err error) {
	if s.err == nil {
		s.err = err
	}
	if s.readErr == nil && !(s.client != nil && s.recvEnd) {
		s.readErr = err
		s.queue.drop()
	}
	if !s.closed {
		s.removeLocked()
	}
	s.leaveTurns()
	s.c.out.turn.wake()
	s.readable.Broadcast()
	s.writable.Broadcast()
}

// resetLocked resets the stream, unless it is closed.
func (s *stream) resetLocked(code h2.ErrCode, err error) ended {
	if !s.closed {
		if s.id != 0 {
			s.c.resetLocked(s.id, code)
		}
		s.failLocked(err)
	}
	return ended{s, err}
}

// resetLocked queues a RST_STREAM.
func (c *conn) resetLocked(id uint32, code h2.ErrCode) {
	c.out.reset(id, code)
	c.resets.add(id)
}

// unsentLocked reports whether nothing of the stream was ever sent.
func (s *stream) unsentLocked() bool {
	return s.id == 0 || s.c.out.waits(s.client.head)
}

// Abort ends the stream so that what was sent of it never looks complete.
// Whatever call is waiting returns cause. It may be called by any goroutine,
// any time.
func (s *stream) Abort(cause error) {
	if cause == nil {
		cause = errOver
	}
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.client != nil {
		s.client.suspectLocked()
	}
	s.resetLocked(codeOf(cause, s.server != nil), cause)
	s.overLocked(cause)
}

// overLocked ends whatever can still be done with the stream.
func (s *stream) overLocked(cause error) {
	if s.err == nil {
		s.err = cause
	}
	if s.readErr == nil {
		s.readErr = cause
		s.queue.drop()
		s.readable.Broadcast()
	}
}
