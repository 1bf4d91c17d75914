package http2

import (
	"errors"

	h2 "golang.org/x/net/http2"
)

// onFrame reads and processes any frame but DATA.
func (in *inbox) onFrame(fh h2.FrameHeader) *Error {
	c := in.conn
	if fh.Length > smallBuffer {
		in.large = true
	}
	f, err := in.framer.ReadFrameForHeader(fh)
	if err != nil {
		var se h2.StreamError
		if !errors.As(err, &se) || in.err != nil {
			return in.readError(err)
		}
		if fh.Type == h2.FrameHeaders {
			return broken(se.Code, "a malformed HEADERS frame") // without its block, the decoder's table is out of sync
		}
		return in.refuse(fh.StreamID, malformed("a malformed frame"))
	}
	switch f := f.(type) {
	case *h2.HeadersFrame:
		return in.onHeaders(f)
	case *h2.RSTStreamFrame:
		return in.conclude(in.onReset(f))
	case *h2.WindowUpdateFrame:
		return in.conclude(in.onWindowUpdate(f))
	case *h2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return in.refuse(f.StreamID, malformed("a stream that depends on itself"))
		}
		return in.conclude(in.onPriority(f))
	case *h2.SettingsFrame:
		return in.onSettings(f)
	case *h2.PingFrame:
		return in.onPing(f)
	case *h2.PushPromiseFrame:
		return broken(h2.ErrCodeProtocol, "a PUSH_PROMISE although push is disabled")
	case *h2.GoAwayFrame:
		if c.client != nil {
			c.client.onGoAway(f)
		}
		return in.spend(framesAccount, connFrameCosts[h2.FrameGoAway])
	}
	return in.spend(framesAccount, unknownFrameCost)
}

// spend charges the cost of a frame to the peer. c.mu is not held.
func (in *inbox) spend(from account, cost int) *Error {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.abuse.spend(from, cost)
}

// readBlock reads the rest of a header block and decodes it into c.in.block. It
// decodes even a block that is too large, to keep the decoder's table in sync.
func (in *inbox) readBlock(f *h2.HeadersFrame) *Error {
	in.decoder.SetEmitEnabled(true)
	fragment := f.HeaderBlockFragment()
	if !f.HeadersEnded() {
		// Otherwise the decoder would keep the joined block in memory.
		defer in.forgetFragment()
		whole, err := in.readContinuations(fragment)
		if err != nil {
			return err
		}
		fragment = whole
	}
	if _, err := in.decoder.Write(fragment); err != nil {
		return broken(h2.ErrCodeCompression, "a header block that cannot be decoded")
	}
	if in.decoder.Close() != nil {
		return broken(h2.ErrCodeCompression, "a header block that ends too early")
	}
	return nil
}

// readContinuations returns a header block that begins with first.
func (in *inbox) readContinuations(first []byte) ([]byte, *Error) {
	c := in.conn
	block := append(make([]byte, 0, 2*maxFrame), first...)
	for range maxContinued {
		fh, err := in.framer.ReadFrameHeader() // returns an error unless the frame is a CONTINUATION
		if err != nil {
			return nil, in.readError(err)
		}
		in.large = true
		next, err := in.framer.ReadFrameForHeader(fh)
		if err != nil {
			return nil, in.readError(err)
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

// onHeaders handles a header block: a head or a trailer.
func (in *inbox) onHeaders(f *h2.HeadersFrame) *Error {
	end := f.StreamEnded()
	dependsOnItself := f.HasPriority() && f.Priority.StreamDep == f.StreamID
	id := f.StreamID
	defer in.block.release()
	if err := in.readBlock(f); err != nil {
		return err
	}
	if dependsOnItself && in.block.fault == "" {
		in.block.fault = "a stream that depends on itself"
	}
	return in.conclude(in.onBlock(id, end))
}

// onBlock handles the decoded block: a head or a trailer.
func (in *inbox) onBlock(id uint32, end bool) outcome {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s, v, streamErr, fatal := c.checkFrame(headersFrame, id)
	if v == process {
		if c.server != nil {
			streamErr = c.server.onBlockLocked(s, id, end)
		} else {
			streamErr = s.client.onBlockLocked(end)
		}
		if streamErr == nil && (s == nil || !s.refused) {
			c.abuse.head()
		}
	}
	switch {
	case streamErr != nil && streamErr.Code == h2.ErrCodeNo: // already answered with 431
		return outcome{streamErr: streamErr, connErr: c.abuse.spend(streamsAccount, 1)}
	case streamErr != nil:
		return c.refuseLocked(id, streamErr)
	}
	return outcome{connErr: fatal}
}

// onTrailerLocked handles the trailer of a stream.
func (s *stream) onTrailerLocked(end bool) *Error {
	if !end {
		return malformed("a second head, or a trailer that does not end the stream")
	}
	trailer, fault := s.c.in.block.trailer()
	if fault != "" {
		return malformed(fault)
	}
	if s.server != nil && s.readErr == nil && !s.refused && !s.server.chargeLocked(s.c.in.block.size) {
		return &Error{Code: h2.ErrCodeEnhanceYourCalm, Reason: "a trailer, and the connection's streams hold too much memory"}
	}
	s.trailer = trailer
	return s.endedLocked()
}

func (in *inbox) onReset(f *h2.RSTStreamFrame) (o outcome) {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	s, v, _, end := c.checkFrame(resetFrame, f.StreamID)
	o.connErr = end
	if s == nil || v != process {
		return o
	}
	var err error
	if s.client != nil && s.recvEnd { // the response is complete
		if err = ErrUnwanted; f.ErrCode != h2.ErrCodeNo {
			err = &Error{Code: f.ErrCode, Remote: true}
		}
	} else {
		err = &Error{Code: f.ErrCode, Remote: true, Unprocessed: f.ErrCode == h2.ErrCodeRefusedStream && s.unansweredLocked()}
	}
	s.failLocked(err)
	o.ends = []streamEnd{{s, err}}
	return o
}

func (in *inbox) onPriority(f *h2.PriorityFrame) outcome {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, _, end := c.checkFrame(priorityFrame, f.StreamID)
	return outcome{connErr: end}
}

func (in *inbox) onWindowUpdate(f *h2.WindowUpdateFrame) outcome {
	c := in.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.StreamID == 0 {
		if end := c.abuse.spend(framesAccount, connFrameCosts[h2.FrameWindowUpdate]); end != nil {
			return outcome{connErr: end}
		}
		if c.sendWindow += int64(f.Increment); c.sendWindow > maxWindow {
			return outcome{connErr: broken(h2.ErrCodeFlowControl, "a window that is too large")}
		}
		if c.sendWindow > 0 {
			c.windowClosedSince = 0
		}
		c.out.bodyQueue.wake()
		return outcome{}
	}
	s, v, _, end := c.checkFrame(windowFrame, f.StreamID)
	if s == nil || v != process {
		return outcome{connErr: end}
	}
	if s.sendWindow += int64(f.Increment); s.sendWindow > maxWindow {
		return c.refuseLocked(f.StreamID, &Error{Code: h2.ErrCodeFlowControl, Reason: "a window that is too large"})
	}
	s.wakeWriterLocked()
	return outcome{}
}

func (in *inbox) onPing(f *h2.PingFrame) *Error {
	c := in.conn
	cleared, end := in.takePing(f)
	if cleared && c.client != nil {
		c.client.changed() // it may open streams again
	}
	return end
}

func (in *inbox) takePing(f *h2.PingFrame) (cleared bool, end *Error) {
	c := in.conn
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
