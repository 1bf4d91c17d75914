package http2

import (
	"io"

	h2 "golang.org/x/net/http2"
)

// onData handles a DATA frame. It reads a large payload directly into the chunk
// that holds it for the stream.
func (in *inbox) onData(fh h2.FrameHeader) *Error {
	if fh.StreamID == 0 {
		return broken(h2.ErrCodeProtocol, "DATA without a stream")
	}
	if in.buffered() < int(fh.Length) {
		in.inData.Store(true)
		defer in.inData.Store(false)
	}
	n, padding := int(fh.Length), 0
	if fh.Flags.Has(h2.FlagDataPadded) {
		var err *Error
		if padding, err = in.readPadLength(n); err != nil {
			return err
		}
		n -= 1 + padding
	}
	s, unread, o := in.admit(fh, n)
	if end := in.conclude(o); end != nil {
		return end
	}
	if s != nil && unread > 0 {
		chunk := newChunk(n)
		if _, err := io.ReadFull(in.reader, chunk.buf[:n]); err != nil {
			chunk.free()
			return in.readError(err)
		}
		chunk.w = n
		if end := in.conclude(in.queueChunk(s, chunk, fh)); end != nil {
			return end
		}
		unread = 0
	}
	return in.skip(unread + padding)
}

// readPadLength returns the length of the padding of a frame with n bytes.
func (in *inbox) readPadLength(n int) (int, *Error) {
	if n == 0 {
		return 0, broken(h2.ErrCodeFrameSize, "a frame that is too short")
	}
	var p [1]byte
	if _, err := io.ReadFull(in.reader, p[:]); err != nil {
		return 0, in.readError(err)
	}
	if int(p[0]) > n-1 {
		return 0, broken(h2.ErrCodeProtocol, "padding longer than its frame")
	}
	return int(p[0]), nil
}

func (in *inbox) skip(n int) *Error {
	if n == 0 {
		return nil
	}
	if err := in.reader.discard(n); err != nil {
		return in.readError(err)
	}
	return nil
}

// admit decides on a DATA frame with n bytes of a body. A small payload that
// has already arrived goes into the stream's queue. Otherwise unread is the
// number of bytes left to read: into the returned stream, or to discard if it
// is nil.
func (in *inbox) admit(fh h2.FrameHeader, n int) (s *stream, unread int, o outcome) {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.connErr = in.takeWindowLocked(int64(fh.Length)); o.connErr != nil {
		return nil, n, o
	}
	ends := fh.Flags.Has(h2.FlagDataEndStream)
	kind := dataFrame
	if n == 0 && !ends {
		kind = emptyDataFrame
	}
	s, v, streamErr, end := c.checkFrame(kind, fh.StreamID)
	if v == process {
		streamErr = s.admitLocked(int(fh.Length), n)
	}
	switch {
	case end != nil:
		return nil, n, outcome{connErr: end}
	case streamErr != nil:
		return nil, n, c.refuseLocked(fh.StreamID, streamErr)
	case v != process:
		return nil, n, o
	case s.refused || s.readErr != nil:
		if ends {
			s.recvEnd = true
			s.closeLocked()
		}
		return nil, n, o
	}
	if n > 0 {
		c.abuse.received(n)
	}
	if n > smallChunk || n > in.buffered() {
		return s, n, o
	}
	if n > 0 {
		s.queue.add(in.view(n))
	}
	if streamErr = s.arrivedLocked(int(fh.Length)-n, ends); streamErr != nil {
		o = c.refuseLocked(fh.StreamID, streamErr)
	}
	return nil, 0, o
}

// queueChunk appends the payload of a DATA frame to its stream's queue.
func (in *inbox) queueChunk(s *stream, chunk *chunk, fh h2.FrameHeader) (o outcome) {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	overhead := int(fh.Length) - chunk.w
	if s.readErr != nil || s.refused {
		chunk.free()
	} else {
		s.queue.put(chunk)
	}
	if streamErr := s.arrivedLocked(overhead, fh.Flags.Has(h2.FlagDataEndStream)); streamErr != nil {
		return c.refuseLocked(fh.StreamID, streamErr)
	}
	return o
}

// takeWindowLocked charges n bytes to the connection's window. It reopens the
// window when half of it is used.
func (in *inbox) takeWindowLocked(n int64) *Error {
	c := in.conn
	if in.window -= n; in.window < 0 {
		return broken(h2.ErrCodeFlowControl, "more data than the connection's window allows")
	}
	if in.window <= connWindow/2 {
		c.out.windowUpdate(0, int(connWindow-in.window))
		in.window = connWindow
	}
	return nil
}

// admitLocked charges a frame of length bytes to the stream's window; n of them
// belong to the body. It returns the frame's fault, if any.
func (s *stream) admitLocked(length, n int) *Error {
	switch {
	case s.client != nil && !s.client.answered:
		return malformed("DATA before the response's head")
	case length > s.window:
		return &Error{Code: h2.ErrCodeFlowControl, Reason: "more data than the stream's window allows"}
	}
	s.window -= length
	if s.left >= 0 {
		if s.left -= int64(n); s.left < 0 {
			return malformed("a body longer than its Content-Length")
		}
	}
	return nil
}

// arrivedLocked is called when the payload of a DATA frame is in the stream's
// queue. overhead is the part of the frame that does not belong to the body. It
// returns the stream's fault, if any.
func (s *stream) arrivedLocked(overhead int, end bool) *Error {
	if s.closed {
		return nil
	}
	s.reopenWindowLocked(overhead)
	s.notifyLater()
	if end {
		return s.endedLocked()
	}
	return nil
}
