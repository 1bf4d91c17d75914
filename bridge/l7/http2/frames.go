package http2

import (
	"errors"

	h2 "golang.org/x/net/http2"
)

// onFrame reads and processes any frame but DATA.
func (c *conn) onFrame(fh h2.FrameHeader) *Error {
	if fh.Length > smallBuffer {
		c.in.large = true
	}
	f, err := c.in.framer.ReadFrameForHeader(fh)
	if err != nil {
		var se h2.StreamError
		if !errors.As(err, &se) || c.in.err != nil {
			return c.readError(err)
		}
		if fh.Type == h2.FrameHeaders {
			return broken(se.Code, "a malformed HEADERS frame") // its block is lost
		}
		return c.refuse(fh.StreamID, malformed("a malformed frame"))
	}
	switch f := f.(type) {
	case *h2.HeadersFrame:
		return c.onHeaders(f)
	case *h2.RSTStreamFrame:
		return c.conclude(c.onReset(f))
	case *h2.WindowUpdateFrame:
		return c.conclude(c.onWindowUpdate(f))
	case *h2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return c.refuse(f.StreamID, malformed("a stream that depends on itself"))
		}
		return c.conclude(c.onPriority(f))
	case *h2.SettingsFrame:
		return c.onSettings(f)
	case *h2.PingFrame:
		return c.onPing(f)
	case *h2.PushPromiseFrame:
		return broken(h2.ErrCodeProtocol, "a promise that was not asked for")
	case *h2.GoAwayFrame:
		if c.client != nil {
			c.client.onGoAway(f)
		}
		return c.spend(framesAccount, connFrameCosts[h2.FrameGoAway])
	}
	return c.spend(framesAccount, unknownFrameCost)
}

// spend takes the cost of a frame off what the peer has. c.mu is not held.
func (c *conn) spend(from account, cost int) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abuse.spend(from, cost)
}

// readBlock reads the rest of a header block and decodes it into c.in.block. All
// of it is decoded even if it is too large, so that the next one can be.
func (c *conn) readBlock(f *h2.HeadersFrame) *Error {
	c.in.decoder.SetEmitEnabled(true)
	fragment := f.HeaderBlockFragment()
	if !f.HeadersEnded() {
		// The decoder would keep the memory of what it had to put together.
		defer c.in.forgetFragment()
		whole, err := c.readContinuations(fragment)
		if err != nil {
			return err
		}
		fragment = whole
	}
	if _, err := c.in.decoder.Write(fragment); err != nil {
		return broken(h2.ErrCodeCompression, "a header block that cannot be decoded")
	}
	if c.in.decoder.Close() != nil {
		return broken(h2.ErrCodeCompression, "a header block that ends too early")
	}
	return nil
}

// readContinuations returns a header block that begins with first.
func (c *conn) readContinuations(first []byte) ([]byte, *Error) {
	block := append(make([]byte, 0, 2*maxFrame), first...)
	for range maxContinued {
		fh, err := c.in.framer.ReadFrameHeader() // which checks that it is a CONTINUATION
		if err != nil {
			return nil, c.readError(err)
		}
		c.in.large = true
		next, err := c.in.framer.ReadFrameForHeader(fh)
		if err != nil {
			return nil, c.readError(err)
		}
		cont, ok := next.(*h2.ContinuationFrame)
		if !ok {
			return nil, broken(h2.ErrCodeProtocol, "a header block that is interrupted")
		}
		block = append(block, cont.HeaderBlockFragment()...)
		if len(block) > 2*c.o.MaxHeaderBytes+maxFrame {
			break
		}
		if cont.HeadersEnded() {
			return block, nil
		}
	}
	return nil, broken(h2.ErrCodeEnhanceYourCalm, "a header block that is far too large")
}

// onHeaders takes a header block as a head or trailer.
func (c *conn) onHeaders(f *h2.HeadersFrame) *Error {
	end := f.StreamEnded()
	dependsOnItself := f.HasPriority() && f.Priority.StreamDep == f.StreamID
	id := f.StreamID
	defer c.in.block.release()
	if err := c.readBlock(f); err != nil {
		return err
	}
	if dependsOnItself && c.in.block.fault == "" {
		c.in.block.fault = "a stream that depends on itself"
	}
	return c.conclude(c.onBlock(id, end))
}

// onBlock takes the block that was read last as a head or trailer.
func (c *conn) onBlock(id uint32, end bool) outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, v, why, fatal := c.judge(headersFrame, id)
	if v == process {
		if c.server != nil {
			why = c.server.onBlockLocked(s, id, end)
		} else {
			why = s.client.onBlockLocked(end)
		}
		if why == nil && (s == nil || !s.refused) {
			c.abuse.head()
		}
	}
	if why != nil {
		return c.refuseLocked(id, why)
	}
	return outcome{end: fatal}
}

// onTrailerLocked takes the block as a stream's trailer.
func (s *stream) onTrailerLocked(end bool) *Error {
	if !end {
		return malformed("a second head, or a trailer that does not end the stream")
	}
	trailer, fault := s.c.in.block.trailer()
	if fault != "" {
		return malformed(fault)
	}
	s.trailer = trailer
	return s.endedLocked()
}

func (c *conn) onReset(f *h2.RSTStreamFrame) (o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, v, _, end := c.judge(resetFrame, f.StreamID)
	o.end = end
	if s == nil || v != process {
		return o
	}
	var err error
	if s.client != nil && s.recvEnd { // the response is whole
		if err = ErrUnwanted; f.ErrCode != h2.ErrCodeNo {
			err = &Error{Code: f.ErrCode, Remote: true}
		}
	} else {
		err = &Error{Code: f.ErrCode, Remote: true, Unprocessed: f.ErrCode == h2.ErrCodeRefusedStream && s.unansweredLocked()}
	}
	s.failLocked(err)
	o.gone = []ended{{s, err}}
	return o
}

func (c *conn) onPriority(f *h2.PriorityFrame) outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, _, end := c.judge(priorityFrame, f.StreamID)
	return outcome{end: end}
}

func (c *conn) onWindowUpdate(f *h2.WindowUpdateFrame) outcome {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if end := c.abuse.spend(framesAccount, connFrameCosts[h2.FrameWindowUpdate]); end != nil {
			return outcome{end: end}
		}
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			return outcome{end: broken(h2.ErrCodeFlowControl, "a window that is too large")}
		}
		if c.sendWindow > 0 {
			c.shutSince = 0
		}
		c.out.turn.wake()
		return outcome{}
	}
	s, v, _, end := c.judge(windowFrame, f.StreamID)
	if s == nil || v != process {
		return outcome{end: end}
	}
	if s.sendWindow += int64(f.Increment); s.sendWindow > maxWindow {
		return c.refuseLocked(f.StreamID, &Error{Code: h2.ErrCodeFlowControl, Reason: "a window that is too large"})
	}
	s.writable.Signal()
	return outcome{}
}

func (c *conn) onPing(f *h2.PingFrame) *Error {
	cleared, end := c.takePing(f)
	if cleared && c.client != nil {
		c.client.changed() // it has room again
	}
	return end
}

func (c *conn) takePing(f *h2.PingFrame) (cleared bool, end *Error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !f.IsAck():
		c.out.pingAck(f.Data)
	case c.server != nil && f.Data == drainPing:
		c.server.goAwayLocked()
	default:
		cleared = c.pongLocked(f.Data)
	}
	return cleared, c.abuse.spend(framesAccount, connFrameCosts[h2.FramePing])
}
