package http2

import (
	"errors"
	"io"

	h2 "golang.org/x/net/http2"
)

// readFrames reads and does what frames say until the connection is at its end,
// and returns why it is.
func (c *conn) readFrames() *Error {
	defer c.rouse()
	for {
		if !c.in.wholeFrame() {
			c.rouse() // before it waits
		}
		fh, err := c.framer.ReadFrameHeader()
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
		go c.server.handle(s)
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
		_ = c.framer.WriteWindowUpdate(0, uint32(connWindow-c.recvWindow))
		c.recvWindow = connWindow
		c.kickLocked()
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

func (c *conn) onSettings(f *h2.SettingsFrame) *Error {
	if f.IsAck() {
		if c.unacked--; c.unacked < 0 {
			return broken(h2.ErrCodeProtocol, "an acknowledgement of nothing")
		}
		return nil
	}
	c.mu.Lock()
	end := c.uselessLocked(1 + f.NumSettings())
	for i := 0; i < f.NumSettings() && end == nil; i++ {
		end = c.settingLocked(f.Setting(i))
	}
	if end == nil {
		_ = c.framer.WriteSettingsAck()
		end = c.repliedLocked()
	}
	c.settled.Store(true)
	c.mu.Unlock()
	if c.client != nil {
		c.client.changed()
	}
	return end
}

// repliedLocked is for when what the peer asked for is in out.
func (c *conn) repliedLocked() *Error {
	c.kickLocked()
	if len(c.out) > maxUnsentReply {
		return broken(h2.ErrCodeEnhanceYourCalm, "too many frames that ask for an answer, and none is taken")
	}
	return nil
}

// settingLocked does what one of the peer's settings says (section 6.5.2).
func (c *conn) settingLocked(s h2.Setting) *Error {
	switch s.ID {
	case h2.SettingHeaderTableSize:
		c.encoder.hpack.SetMaxDynamicTableSize(s.Val) // or less: headerTable is the most
	case h2.SettingEnablePush:
		if s.Val > 1 || s.Val == 1 && c.client != nil {
			return broken(h2.ErrCodeProtocol, "an ENABLE_PUSH that is not allowed")
		}
	case h2.SettingMaxConcurrentStreams:
		c.peer.maxStreams = int(min(s.Val, maxWindow))
	case h2.SettingInitialWindowSize:
		if s.Val > maxWindow {
			return broken(h2.ErrCodeFlowControl, "an INITIAL_WINDOW_SIZE that is too large")
		}
		delta := int64(s.Val) - c.peer.window
		c.peer.window = int64(s.Val)
		for _, st := range c.streams {
			if st.sendWindow += delta; st.sendWindow > maxWindow {
				return broken(h2.ErrCodeFlowControl, "a window that is too large")
			}
			st.writable.Signal()
		}
	case h2.SettingMaxFrameSize:
		if s.Val < maxFrame || s.Val > 1<<24-1 {
			return broken(h2.ErrCodeProtocol, "a MAX_FRAME_SIZE that is not allowed")
		}
		// maxFrame is always allowed, and is enough.
	case h2.SettingMaxHeaderListSize:
		c.peer.maxHeaderBytes = int64(s.Val)
	case h2.SettingEnableConnectProtocol:
		if s.Val > 1 || s.Val == 0 && c.peer.extendedConnect {
			return broken(h2.ErrCodeProtocol, "an ENABLE_CONNECT_PROTOCOL that is not allowed")
		}
		c.peer.extendedConnect = s.Val == 1
	}
	return nil
}

func (c *conn) onWindowUpdate(f *h2.WindowUpdateFrame) *Error {
	c.mu.Lock()
	end := c.uselessLocked(1)
	var why *Error
	var gone ended
	s := c.streams[f.StreamID]
	switch {
	case end != nil:
	case f.StreamID == 0:
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			end = broken(h2.ErrCodeFlowControl, "a window that is too large")
		}
		c.forTurn.wake()
	case s != nil:
		if s.sendWindow += int64(f.Increment); s.sendWindow > maxWindow {
			why = &Error{Code: h2.ErrCodeFlowControl, Reason: "a window that is too large"}
			gone, end = c.refuseLocked(f.StreamID, why)
		}
		s.writable.Signal()
	case c.neverOpened(f.StreamID):
		end = broken(h2.ErrCodeProtocol, "WINDOW_UPDATE on a stream that was never opened")
	}
	c.mu.Unlock()
	if why != nil {
		c.refused(gone, why)
	}
	return end
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
	_ = c.framer.WritePing(true, f.Data)
	if end := c.repliedLocked(); end != nil {
		return end
	}
	return c.uselessLocked(1)
}
