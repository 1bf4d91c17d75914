package http2

import (
	"errors"
	"runtime"
	"sync"
	"syscall"
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	frameHeader = 9 // bytes (section 4.1)

	// outLimit is how much may wait in out before bodies must wait.
	outLimit = 64 << 10

	smallOut = 4 << 10
	largeOut = outLimit + 2*maxFrame
)

var smallOuts = sync.Pool{New: func() any { return new([smallOut]byte) }}
var largeOuts = sync.Pool{New: func() any { return new([largeOut]byte) }}

// freeOut gives a buffer of out's back.
func freeOut(p []byte) {
	switch cap(p) {
	case smallOut:
		smallOuts.Put((*[smallOut]byte)(p[:smallOut]))
	case largeOut:
		largeOuts.Put((*[largeOut]byte)(p[:largeOut]))
	}
}

// reserveLocked makes room for n bytes in out.
func (c *conn) reserveLocked(n int) {
	need := len(c.out) + n
	if need <= cap(c.out) {
		return
	}
	old := c.out
	switch {
	case need <= smallOut:
		c.out = smallOuts.Get().(*[smallOut]byte)[:0]
	case need <= largeOut:
		c.out = largeOuts.Get().(*[largeOut]byte)[:0]
	default:
		return // append shall see to it
	}
	c.out = append(c.out, old...)
	freeOut(old)
}

// An outWriter is what the framer writes frames to. c.mu is held.
type outWriter conn

func (w *outWriter) Write(p []byte) (int, error) {
	c := (*conn)(w)
	c.reserveLocked(len(p))
	c.out = append(c.out, p...)
	return len(p), nil
}

// dataLocked queues a DATA frame. It does not go through the framer, which
// would copy p twice.
func (c *conn) dataLocked(id uint32, p []byte, end bool) {
	n := len(p)
	c.reserveLocked(frameHeader + n)
	var flags h2.Flags
	if end {
		flags = h2.FlagDataEndStream
	}
	c.out = append(c.out, byte(n>>16), byte(n>>8), byte(n), byte(h2.FrameData), byte(flags), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
	c.out = append(c.out, p...)
}

// blockLocked queues what the encoder has made as a header block.
func (c *conn) blockLocked(id uint32, end bool) {
	block := c.encoder.buf.b
	most := c.peer.maxFrame
	first := block[:min(len(block), most)]
	rest := block[len(first):]
	_ = c.framer.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(rest) == 0})
	for len(rest) > 0 {
		next := rest[:min(len(rest), most)]
		rest = rest[len(next):]
		_ = c.framer.WriteContinuation(id, len(rest) == 0, next)
	}
}

// kickLocked sees to it that out is sent. c.mu is held.
func (c *conn) kickLocked() {
	if c.flushing || len(c.out) == 0 || c.closed || c.unwritable != nil {
		return
	}
	c.flushing = true
	c.workers.Add(1)
	go c.flushFunc()
}

// flush sends out until there is nothing more.
func (c *conn) flush() {
	defer c.workers.Done()
	// Whoever else is about to send something shall be in the same write.
	runtime.Gosched()
	var gone []ended
	c.mu.Lock()
	for len(c.out) > 0 && (c.err == nil || c.err.mayBeTold()) {
		p := c.out
		c.out, c.spare = c.spare[:0], nil
		c.outNumber++
		c.writing = max(c.now(), 1)
		c.forRoom.wakeAll()
		c.forTurn.wake()
		c.mu.Unlock()
		_, err := c.nc.Write(p)
		c.mu.Lock()
		c.writing, c.wrote = 0, c.now()
		c.spare = p[:0]
		if err != nil {
			gone = c.unwritableLocked(err)
			break
		}
	}
	if len(c.out) == 0 {
		freeOut(c.out)
		freeOut(c.spare)
		c.out, c.spare = nil, nil
	}
	c.flushing = false
	c.flushed.Broadcast()
	c.mu.Unlock()
	c.tell(gone)
}

// unwritableLocked is for a write that has failed. A server that refuses what it
// has heard says so and closes, and answers what comes then with a reset: so what
// is here of its words is read first. What is to be told of is returned, as by
// failLocked. c.mu is held.
func (c *conn) unwritableLocked(err error) (gone []ended) {
	if c.client == nil || c.err != nil || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return c.failLocked(&Error{Err: err})
	}
	c.unwritable = err
	c.out = c.out[:0]
	c.forRoom.wakeAll()
	_ = c.nc.SetReadDeadline(time.Now().Add(lastReadTime)) // fails only if it is closed, and then so does reading
	return nil
}

// turns are streams that wait, the one that has waited longest first. A stream
// waits in one at most.
type turns struct{ head, tail *stream }

// join puts s at the end, unless it waits already.
func (t *turns) join(s *stream) {
	if s.waitsIn == t {
		return
	}
	s.waitsIn = t
	if t.tail == nil {
		t.head = s
	} else {
		t.tail.behind = s
	}
	t.tail = s
}

// leaveTurns takes s out of what it waits in, if it does.
func (s *stream) leaveTurns() {
	t := s.waitsIn
	if t == nil {
		return
	}
	var before *stream
	for at := t.head; at != s; at = at.behind {
		before = at
	}
	if before == nil {
		t.head = s.behind
	} else {
		before.behind = s.behind
	}
	if t.tail == s {
		t.tail = before
	}
	s.behind, s.waitsIn = nil, nil
}

// wake lets the first look whether its turn has come.
func (t *turns) wake() {
	if t.head != nil {
		t.head.writable.Signal()
	}
}

// wakeAll lets all of them look.
func (t *turns) wakeAll() {
	for s := t.head; s != nil; s = s.behind {
		s.writable.Signal()
	}
}
