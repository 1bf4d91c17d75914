package http2

import (
	"io"

	h2 "golang.org/x/net/http2"
)

// onData reads a DATA frame, the payload straight to where it is to wait.
func (c *conn) onData(fh h2.FrameHeader) *Error {
	length := int(fh.Length)
	n := length
	if fh.StreamID == 0 {
		return broken(h2.ErrCodeProtocol, "DATA without a stream")
	}
	if c.in.buffered() < length {
		c.inData.Store(true)
		defer c.inData.Store(false)
	}
	padding := 0
	if fh.Flags.Has(h2.FlagDataPadded) {
		if n == 0 {
			return broken(h2.ErrCodeFrameSize, "a frame that is too short")
		}
		var p [1]byte
		if _, err := io.ReadFull(c.in, p[:]); err != nil {
			return c.readError(err)
		}
		if padding = int(p[0]); padding > n-1 {
			return broken(h2.ErrCodeProtocol, "padding longer than its frame")
		}
		n -= 1 + padding
	}
	c.mu.Lock()
	s, why, end := c.admitLocked(fh, n)
	var gone ended
	if why != nil && end == nil {
		gone, end = c.refuseLocked(fh.StreamID, why)
	}
	inPlace := s != nil && n <= smallChunk && n <= c.in.buffered()
	if inPlace {
		if n > 0 {
			s.queue.add(c.in.view(n))
		}
		why = s.arrivedLocked(length-n, fh.Flags.Has(h2.FlagDataEndStream))
		if why != nil {
			gone, end = c.refuseLocked(fh.StreamID, why)
		}
	}
	c.mu.Unlock()
	if why != nil {
		c.refused(gone, why)
	}
	switch {
	case end != nil:
		return end
	case inPlace:
		return c.discard(padding)
	case s == nil || why != nil:
		return c.discard(n + padding)
	}
	chunk := newChunk(n)
	if _, err := io.ReadFull(c.in, chunk.buf[:n]); err != nil {
		chunk.free()
		return c.readError(err)
	}
	chunk.w = n
	if err := c.discard(padding); err != nil {
		chunk.free()
		return err
	}
	c.mu.Lock()
	if s.readErr != nil || s.refused {
		chunk.free()
	} else {
		s.queue.push(chunk)
	}
	if why = s.arrivedLocked(length-n, fh.Flags.Has(h2.FlagDataEndStream)); why != nil {
		gone, end = c.refuseLocked(fh.StreamID, why)
	}
	c.mu.Unlock()
	if why != nil {
		c.refused(gone, why)
	}
	return end
}

func (c *conn) discard(n int) *Error {
	if err := c.in.discard(n); err != nil {
		return c.readError(err)
	}
	return nil
}

// admitLocked returns the stream that n bytes in a DATA frame are for; nil if
// nobody wants them. why is the fault of the stream, end the connection's. c.mu
// is held.
func (c *conn) admitLocked(fh h2.FrameHeader, n int) (s *stream, why, end *Error) {
	length := int64(fh.Length)
	if c.recvWindow -= length; c.recvWindow < 0 {
		return nil, nil, broken(h2.ErrCodeFlowControl, "more than the connection's window")
	}
	if c.recvWindow <= connWindow/2 {
		c.out.windowUpdate(0, int(connWindow-c.recvWindow))
		c.recvWindow = connWindow
	}
	if n == 0 && !fh.Flags.Has(h2.FlagDataEndStream) {
		if end = c.uselessLocked(1); end != nil {
			return nil, nil, end
		}
	} else {
		c.controls.earn(worth(n))
	}
	s = c.streams[fh.StreamID]
	switch {
	case s == nil && c.neverOpened(fh.StreamID):
		return nil, nil, broken(h2.ErrCodeProtocol, "DATA on a stream that was never opened")
	case s == nil && c.wasResetLocked(fh.StreamID):
		return nil, nil, c.uselessLocked(1)
	case s == nil:
		return nil, &Error{Code: h2.ErrCodeStreamClosed, Reason: "DATA on a closed stream"}, nil
	case s.recvEnd:
		return nil, &Error{Code: h2.ErrCodeStreamClosed, Reason: "DATA behind the end of the stream"}, nil
	case s.client != nil && !s.client.answered:
		return nil, malformed("DATA before the response's head"), nil
	case length > int64(s.window):
		return nil, &Error{Code: h2.ErrCodeFlowControl, Reason: "more than the stream's window"}, nil
	}
	s.window -= int(length)
	if s.left >= 0 {
		if s.left -= int64(n); s.left < 0 {
			return nil, malformed("a body longer than its Content-Length"), nil
		}
	}
	if s.refused || s.readErr != nil {
		if fh.Flags.Has(h2.FlagDataEndStream) {
			s.recvEnd = true
			s.closeLocked()
		}
		return nil, nil, nil
	}
	return s, nil, nil
}

// arrivedLocked is for when the payload of a DATA frame is in the stream's
// queue. overhead is what of the frame was none of the body's. It returns what
// is wrong with the stream.
func (s *stream) arrivedLocked(overhead int, end bool) *Error {
	if s.closed {
		return nil
	}
	s.giveBackLocked(overhead)
	s.rouseLater()
	if end {
		return s.endedLocked()
	}
	return nil
}
