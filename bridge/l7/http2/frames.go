package http2

import (
	"errors"

	h2 "golang.org/x/net/http2"
)

// readFrames reads and does what frames say until the connection is at its end,
// and returns why it is; nil if the goroutine is to leave.
func (c *conn) readFrames() *Error {
	defer c.rouse()
	for {
		if !c.in.wholeFrame() {
			c.rouse() // before it waits
		}
		if c.out.crowded.Load() {
			c.rouse()
			c.out.awaitReplyRoom()
		}
		fh, err := c.framer.ReadFrameHeader()
		if err == ErrCalm {
			return nil
		}
		if err != nil {
			return c.readError(err)
		}
		if !c.settled.Load() && (fh.Type != h2.FrameSettings || fh.Flags.Has(h2.FlagSettingsAck)) {
			return broken(h2.ErrCodeProtocol, "a preface that does not begin with SETTINGS")
		}
		var end *Error
		if fh.Type == h2.FrameData {
			end = c.onData(fh)
		} else {
			end = c.onFrame(fh)
		}
		if end != nil {
			return end
		}
		c.in.frameEnded()
	}
}

// rouse wakes those who wait for what has arrived, and starts the handlers of
// new streams. That is put off until all that came at once has been looked at:
// a message then finds its head, body and trailer together, and leaves so.
func (c *conn) rouse() {
	for _, s := range c.arrived {
		s.roused = false
		s.readable.Broadcast()
	}
	clear(c.arrived)
	c.arrived = c.arrived[:0]
	for _, s := range c.begun {
		c.server.assign(s)
	}
	clear(c.begun)
	c.begun = c.begun[:0]
}

// rouseLater has rouse wake who waits for s.
func (s *stream) rouseLater() {
	if !s.roused {
		s.roused = true
		s.c.arrived = append(s.c.arrived, s)
	}
}

// readError makes an error of the framer's one of the connection's.
func (c *conn) readError(err error) *Error {
	var code h2.ConnectionError
	switch {
	case c.in.err != nil:
		return &Error{Err: c.in.err}
	case errors.As(err, &code):
		reason := "a frame that is not allowed here"
		if d := c.framer.ErrorDetail(); d != nil {
			reason = d.Error()
		}
		return broken(h2.ErrCode(code), reason)
	case errors.Is(err, h2.ErrFrameTooLarge):
		return broken(h2.ErrCodeFrameSize, "a frame larger than is allowed")
	default: // io.ErrUnexpectedEOF, of what is shorter than it should be
		return broken(h2.ErrCodeFrameSize, "a frame that is too short")
	}
}

// onFrame reads and does any frame but DATA.
func (c *conn) onFrame(fh h2.FrameHeader) *Error {
	f, err := c.framer.ReadFrameForHeader(fh)
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
	case *h2.SettingsFrame:
		return c.onSettings(f)
	case *h2.WindowUpdateFrame:
		return c.onWindowUpdate(f)
	case *h2.RSTStreamFrame:
		return c.onReset(f)
	case *h2.PingFrame:
		return c.onPing(f)
	case *h2.GoAwayFrame:
		if c.client != nil {
			c.client.onGoAway(f)
		}
	case *h2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return c.refuse(f.StreamID, malformed("a stream that depends on itself"))
		}
	case *h2.PushPromiseFrame:
		return broken(h2.ErrCodeProtocol, "a promise that was not asked for")
	}
	return c.useless(1)
}

// useless takes the cost of frames that carry nothing off what the peer has.
func (c *conn) useless(cost int) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uselessLocked(cost)
}

func (c *conn) uselessLocked(cost int) *Error {
	if !c.controls.spend(cost, c.now) {
		return broken(h2.ErrCodeEnhanceYourCalm, "too many frames that carry nothing")
	}
	return nil
}

// refuse resets a stream, whether there is one or not, for what the peer did.
func (c *conn) refuse(id uint32, why *Error) *Error {
	c.mu.Lock()
	gone, end := c.refuseLocked(id, why)
	c.mu.Unlock()
	c.refused(gone, why)
	return end
}

// refuseLocked is refuse; refused must follow. c.mu is held.
func (c *conn) refuseLocked(id uint32, why *Error) (gone ended, end *Error) {
	if s := c.streams[id]; s != nil {
		gone = s.resetLocked(why.Code, why)
	} else {
		c.resetLocked(id, why.Code)
	}
	if !c.unused.spend(1, c.now) {
		end = broken(h2.ErrCodeEnhanceYourCalm, "too many streams that came to nothing")
	}
	return gone, end
}

func (c *conn) refused(gone ended, why *Error) {
	if gone.stream != nil {
		c.tell([]ended{gone})
	}
	if c.server != nil && c.o.Refused != nil {
		c.o.Refused(why)
	}
}

// neverOpened reports whether a stream is idle (section 5.1).
func (c *conn) neverOpened(id uint32) bool { return id%2 == 0 || id > c.lastID }

// readBlock reads the rest of a header block and decodes it into c.block. All
// of it is decoded even if it is too large, so that the next one can be.
func (c *conn) readBlock(f *h2.HeadersFrame) *Error {
	c.block.reset()
	c.decoder.SetEmitEnabled(true)
	fragment, ended := f.HeaderBlockFragment(), f.HeadersEnded()
	total := 0
	for n := 1; ; n++ {
		if total += len(fragment); total > 2*c.o.MaxHeaderBytes+maxFrame || n > maxContinued {
			return broken(h2.ErrCodeEnhanceYourCalm, "a header block that is far too large")
		}
		if _, err := c.decoder.Write(fragment); err != nil {
			return broken(h2.ErrCodeCompression, "a header block that cannot be decoded")
		}
		if ended {
			break
		}
		fh, err := c.framer.ReadFrameHeader() // sees to it that it is a CONTINUATION
		if err != nil {
			return c.readError(err)
		}
		next, err := c.framer.ReadFrameForHeader(fh)
		if err != nil {
			return c.readError(err)
		}
		cont, ok := next.(*h2.ContinuationFrame)
		if !ok {
			return broken(h2.ErrCodeProtocol, "a header block that is interrupted")
		}
		fragment, ended = cont.HeaderBlockFragment(), cont.HeadersEnded()
	}
	if c.decoder.Close() != nil {
		return broken(h2.ErrCodeCompression, "a header block that ends too early")
	}
	return nil
}

func (c *conn) onHeaders(f *h2.HeadersFrame) *Error {
	end := f.StreamEnded()
	dependsOnItself := f.HasPriority() && f.Priority.StreamDep == f.StreamID
	id := f.StreamID
	if err := c.readBlock(f); err != nil {
		return err
	}
	if dependsOnItself && c.block.fault == "" {
		c.block.fault = "a stream that depends on itself"
	}
	if c.server != nil {
		return c.server.onHeaders(id, end)
	}
	return c.client.onHeaders(id, end)
}

// onTrailerLocked takes the block as a stream's trailer.
func (s *stream) onTrailerLocked(end bool) *Error {
	if !end {
		return malformed("a second head, or a trailer that does not end the stream")
	}
	trailer, fault := s.c.block.trailer()
	if fault != "" {
		return malformed(fault)
	}
	s.trailer = trailer
	return s.endedLocked()
}

func (c *conn) onReset(f *h2.RSTStreamFrame) *Error {
	c.mu.Lock()
	s := c.streams[f.StreamID]
	var gone []ended
	var end *Error
	switch {
	case s == nil && c.neverOpened(f.StreamID):
		end = broken(h2.ErrCodeProtocol, "RST_STREAM on a stream that was never opened")
	case s == nil:
		end = c.uselessLocked(1)
	case s.client != nil && s.recvEnd:
		err := ErrUnwanted
		if f.ErrCode != h2.ErrCodeNo {
			err = &Error{Code: f.ErrCode, Remote: true}
		}
		s.failLocked(err) // but the response is whole
		gone = append(gone, ended{s, err})
	default:
		err := &Error{Code: f.ErrCode, Remote: true, Unprocessed: f.ErrCode == h2.ErrCodeRefusedStream}
		s.failLocked(err)
		gone = append(gone, ended{s, err})
		if !c.unused.spend(1, c.now) {
			end = broken(h2.ErrCodeEnhanceYourCalm, "too many streams that came to nothing")
		}
	}
	c.mu.Unlock()
	c.tell(gone)
	return end
}

func (c *conn) onPing(f *h2.PingFrame) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.IsAck() {
		if c.server != nil && f.Data == drainPing {
			c.server.goAwayLocked()
		}
		return c.uselessLocked(1)
	}
	c.out.pingAck(f.Data)
	return c.uselessLocked(1)
}
