package http2

import (
	"io"
	"sync"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A stream is the part of a stream that both roles share. It is guarded by the
// connection's mu.
type stream struct {
	c      *conn
	id     uint32        // 0 until Send (client)
	server *ServerStream // this or client is nil
	client *ClientStream

	closed bool  // removed from the connection
	err    error // why nothing can be sent, or nil

	// Receiving.
	readable sync.Cond
	queue    queue
	viewed   int            // size of the view that Read returned last
	retained int            // bytes that the reader still holds: see Retain
	recvEnd  bool           // the peer has ended its message
	readErr  error          // why the message is incomplete, or nil
	refused  bool           // the rest is discarded
	left     int64          // bytes left of the declared length, or -1
	window   int            // bytes that the peer may still send
	size     int            // size of the fully open window
	consumed int            // bytes read but not yet added to the window
	taken    int64          // bytes that Read has returned
	trailer  message.Fields // valid once recvEnd is set
	notified bool           // is in c.in.arrived; used only by the reading goroutine

	// Sending.
	writable     sync.Cond
	sendWindow   int64
	sendEnd      bool  // the whole message is sent or queued
	sendLeft     int64 // bytes left of the declared length, or -1
	latest       token // the stream's latest frame
	blockedSince int64 // when a Write began to wait for the window, or 0
	waitingIn    *waitQueue
	nextWaiting  *stream // next stream in waitingIn
	onWritable   func()  // see AwaitRoom
}

func (s *stream) init(c *conn, id uint32) {
	s.c, s.id = c, id
	s.readable.L, s.writable.L = &c.mu, &c.mu
	s.left, s.sendLeft = -1, -1
	s.window, s.size = firstWindow, firstWindow
	s.sendWindow = c.peer.window
}

// Read waits for bytes of the body and returns a view of them, valid until the
// next Read. The next Read lets the peer send the same number of further bytes.
// At the end of the body it returns io.EOF. Any other error means that the body
// is incomplete.
func (s *stream) Read() ([]byte, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.reopenWindowLocked(s.viewed)
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
	return s.queue.hasUnread() || s.recvEnd || s.readErr != nil || s.refused
}

// Trailer returns the trailer fields, once Read has returned io.EOF.
func (s *stream) Trailer() message.Fields {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.trailer
}

// MayRetain reports whether the reader may keep a copy of the view that Read returned
// last. The copies fill the stream's window, so MayRetain makes the window larger if
// necessary and possible. It leaves room for one more frame, so that the peer can exceed
// the retained size without waiting for an answer. If all is set, the copies may fill
// the whole window: see Exhausted.
func (s *ServerStream) MayRetain(all bool) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	for !all && !s.recvEnd && s.retained+s.viewed > s.size-maxFrame {
		if s.closed || s.refused || !mayGrow(&s.stream, maxGrowth) {
			return false
		}
		grown := grow(&s.stream)
		s.window += grown
		s.c.out.windowUpdate(s.id, grown)
	}
	return true
}

// Retain says that the reader has copied the view that Read returned last, and keeps the
// copy until Release: the copy fills the stream's window in place of the view, which
// becomes invalid.
func (s *ServerStream) Retain() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.retained += s.viewed
	s.viewed = 0
	s.queue.freeRead()
}

// mayGrow reports whether the stream's window may double, if it is smaller than most. The
// connection's mu is held.
func mayGrow(s *stream, most int) bool {
	return s.size < most && s.c.grown+s.size <= maxGrowth
}

// grow doubles the size of the stream's window. It returns how many bytes more the peer
// may send. The connection's mu is held.
func grow(s *stream) int {
	n := s.size
	s.c.grown += n
	s.size += n
	return n
}

// Exhausted reports whether the retained bytes fill the window, so that the client can
// send nothing until Release. The view that Read returned last becomes invalid.
func (s *ServerStream) Exhausted() bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.reopenWindowLocked(s.viewed)
	s.viewed = 0
	return s.retained > 0 && s.retained+s.consumed >= s.size && !s.bufferedLocked()
}

// Release says that the reader no longer keeps any bytes.
func (s *ServerStream) Release() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	n := s.retained
	s.retained = 0
	s.reopenWindowLocked(n)
}

// reopenWindowLocked reopens the stream's window by n bytes, once at least half of
// the part that is not retained can reopen. If the reader keeps up, the window grows.
func (s *stream) reopenWindowLocked(n int) {
	if n == 0 || s.recvEnd || s.closed || s.refused {
		return
	}
	s.consumed += n
	if s.consumed < (s.size-s.retained)/2 {
		return
	}
	increment := s.consumed
	if mayGrow(s, largestWindow) && !s.queue.hasUnread() {
		increment += grow(s)
	}
	s.consumed = 0
	s.window += increment
	s.c.out.windowUpdate(s.id, increment)
}

// Write sends bytes of the body. It does not keep p. The bytes may wait for
// Flush or End. It blocks while the peer does not read.
func (s *stream) Write(p []byte) error {
	_, err := s.write(p, false)
	return err
}

// write is Write or, with whileOpen, WriteWhileOpen.
func (s *stream) write(p []byte, whileOpen bool) (sent int, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.isTooLongLocked(p) {
		return 0, s.brokenLengthLocked()
	}
	for sent < len(p) {
		switch may, err := s.takeTurnLocked(); {
		case err != nil:
			return sent, err
		case may:
			sent += s.sendFrameLocked(p[sent:])
		case whileOpen && (s.sendWindow <= 0 || s.c.sendWindow <= 0):
			return sent, nil
		default:
			s.waitLocked()
		}
	}
	return sent, nil
}

// TryWrite is Write, but stops where Write would block. It returns how much of p it
// sent. If that is less than all, the caller must call AwaitRoom or TryWrite next. If p
// is empty, TryWrite only returns why nothing can be sent.
func (s *stream) TryWrite(p []byte) (sent int, err error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	if s.isTooLongLocked(p) {
		return 0, s.brokenLengthLocked()
	}
	if len(p) == 0 {
		return 0, s.sendErrLocked()
	}
	for sent < len(p) {
		switch may, err := s.takeTurnLocked(); {
		case err != nil:
			return sent, err
		case !may:
			return sent, nil
		}
		sent += s.sendFrameLocked(p[sent:])
	}
	return sent, nil
}

// isTooLongLocked reports whether p exceeds the rest of the declared length.
func (s *stream) isTooLongLocked(p []byte) bool {
	return s.sendLeft >= 0 && int64(len(p)) > s.sendLeft && s.err == nil
}

// sendFrameLocked queues a frame with the first bytes of p, as many as the windows
// allow. It returns their number.
func (s *stream) sendFrameLocked(p []byte) int {
	c := s.c
	whole := min(len(p), maxFrame)
	n := min(whole, int(s.sendWindow), int(c.sendWindow))
	s.latest = c.out.data(s.id, p[:n], false)
	s.sendWindow -= int64(n)
	c.sendWindow -= int64(n)
	if s.sendLeft >= 0 {
		s.sendLeft -= int64(n)
	}
	c.abuse.sent(n, n < whole)
	if c.out.full() {
		c.out.startSending()
	}
	c.out.bodyQueue.wake()
	return n
}

// AwaitRoom waits without a goroutine until TryWrite can send more, or fails; or, if
// atEnd is set, until the same is true of End. It arranges that ready is called once, in
// a new goroutine. Until then, no method that sends may be called. If there is nothing
// to wait for, AwaitRoom returns false, and ready is not called.
func (s *stream) AwaitRoom(atEnd bool, ready func()) bool {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	turn := s.takeTurnLocked
	if atEnd {
		turn = s.takeRoomLocked
	}
	if may, err := turn(); may || err != nil {
		return false
	}
	s.c.out.startSending()
	s.onWritable = ready
	return true
}

// wakeWriterLocked wakes the goroutine or upload that waits to send on the stream.
func (s *stream) wakeWriterLocked() {
	s.writable.Broadcast()
	if ready := s.onWritable; ready != nil {
		s.onWritable = nil
		go ready()
	}
}

// HasRoom reports whether a small body can be written without waiting. That may
// change before the write.
func (s *stream) HasRoom() bool {
	c := s.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.sendWindow >= smallBody && c.sendWindow >= smallBody && !c.out.full() && c.out.bodyQueue.head == nil
}

// takeTurnLocked reports whether a frame of the body may be sent. If not, the stream
// waits: takeTurnLocked must be called again when the stream is woken. Streams that are
// not held up by their own window take turns, one frame each. A time limit runs
// only while the peer keeps a window shut, and restarts with every byte it lets
// through. Waiting for other streams does not count.
func (s *stream) takeTurnLocked() (may bool, err error) {
	c := s.c
	shut := false
	switch err = s.sendErrLocked(); {
	case err != nil:
		s.leaveQueue()
		c.out.bodyQueue.wake()
	case s.sendWindow <= 0:
		shut = true
		s.leaveQueue()
		c.out.bodyQueue.wake()
	case c.out.full() || c.sendWindow <= 0 || c.out.bodyQueue.head != nil && c.out.bodyQueue.head != s:
		if c.sendWindow <= 0 && (c.windowClosedSince == 0 || c.out.bodyQueue.head == nil) {
			c.windowClosedSince = max(c.now(), 1)
		}
		c.out.bodyQueue.join(s)
	default:
		may = true
		s.leaveQueue()
	}
	s.blockLocked(shut)
	return may, err
}

// awaitRoomLocked waits until a head or trailer may be sent.
func (s *stream) awaitRoomLocked() error {
	for {
		if may, err := s.takeRoomLocked(); may || err != nil {
			return err
		}
		s.waitLocked()
	}
}

// takeRoomLocked is like takeTurnLocked, for a head or trailer.
func (s *stream) takeRoomLocked() (may bool, err error) {
	err = s.sendErrLocked()
	if err == nil && s.c.out.full() {
		s.c.out.room.join(s)
		return false, nil
	}
	s.leaveQueue()
	return err == nil, err
}

func (s *stream) waitLocked() {
	s.c.out.startSending()
	s.writable.Wait()
}

// blockLocked records whether the stream waits for its own window.
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

// stalledLocked resets the streams that were held up too long by a shut window,
// their own or the connection's. c.mu is held.
func (c *conn) stalledLocked(now int64) (ends []streamEnd) {
	past := func(since int64) bool { return since != 0 && now-since > int64(c.o.StallTimeout) }
	shut := past(c.windowClosedSince)
	if c.blocked == 0 && !shut {
		return nil
	}
	for _, s := range c.streams {
		if past(s.blockedSince) || shut && s.waitingIn == &c.out.bodyQueue {
			streamErr := &Error{Code: h2.ErrCodeCancel, Reason: "the peer kept its window shut for too long"}
			ends = append(ends, s.resetLocked(streamErr.Code, streamErr))
		}
	}
	if shut {
		c.windowClosedSince = 0
	}
	return ends
}

// sendErrLocked returns why nothing more can be sent, or nil.
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

// Flush sends everything queued.
func (s *stream) Flush() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.out.startSending()
	return s.err
}

// End completes the body, with an optional trailer, and sends everything queued.
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
		s.latest = c.out.block(s.id, c.encoder.buf, true)
	case !c.out.endStream(s.latest):
		c.out.data(s.id, nil, true)
	}
	s.sentLocked()
	return nil
}

// sentLocked is called when the end of the message is queued.
func (s *stream) sentLocked() {
	s.sendEnd = true
	s.c.out.startSending()
	s.closeLocked()
}

// brokenLengthLocked resets a stream whose sent body differs from its
// Content-Length.
func (s *stream) brokenLengthLocked() error {
	err := &Error{Code: h2.ErrCodeInternal, Reason: "the sent body differs from its Content-Length"}
	s.resetLocked(err.Code, err)
	return err
}

// endedLocked is called when the peer ends its message. It returns an error if
// the body is too short.
func (s *stream) endedLocked() *Error {
	if s.left > 0 {
		return malformed("a body shorter than its Content-Length")
	}
	s.recvEnd = true
	s.notifyLater()
	s.closeLocked()
	return nil
}

// closeLocked closes the stream if both sides have ended their messages.
func (s *stream) closeLocked() {
	if s.recvEnd && s.sendEnd && !s.closed {
		s.c.abuse.completed()
		s.removeLocked()
	}
}

// removeLocked removes the stream from the connection.
func (s *stream) removeLocked() {
	c := s.c
	s.closed = true
	c.grown -= s.size - firstWindow
	delete(c.streams, s.id)
	if s.client != nil {
		c.client.roomGained = c.client.roomGained || c.client.roomLocked() <= 0
		c.client.open--
	} else {
		s.server.endDismissalLocked()
	}
	c.checkIdleLocked()
}

// failLocked ends the stream because of err. Waiting calls return. A complete
// response stays readable.
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
	s.leaveQueue()
	s.blockLocked(false)
	s.c.out.bodyQueue.wake()
	s.wakeReaderLocked()
	s.wakeWriterLocked()
}

// resetLocked resets the stream, unless it is closed.
func (s *stream) resetLocked(code h2.ErrCode, err error) streamEnd {
	if !s.closed {
		if s.id != 0 {
			s.c.resetLocked(s.id, code)
		}
		s.failLocked(err)
	}
	return streamEnd{s, err}
}

// resetLocked queues a RST_STREAM.
func (c *conn) resetLocked(id uint32, code h2.ErrCode) {
	c.out.reset(id, code)
	c.resets.add(id)
}

// unsentLocked reports whether no part of the stream was sent.
func (s *stream) unsentLocked() bool {
	return s.id == 0 || s.c.out.waits(s.client.head)
}

// Abort ends the stream so that its message never looks complete. Waiting calls
// return cause. It may be called from any goroutine at any time.
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

// overLocked makes all further calls on the stream fail with cause.
func (s *stream) overLocked(cause error) {
	if s.err == nil {
		s.err = cause
	}
	if s.readErr == nil {
		s.readErr = cause
		s.queue.drop()
		s.wakeReaderLocked()
	}
}
