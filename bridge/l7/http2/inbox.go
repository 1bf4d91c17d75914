package http2

import (
	"errors"
	"sync/atomic"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An inbox is the state that only the reading goroutine uses.
type inbox struct {
	conn *conn
	*reader
	framer  *h2.Framer // used for reading only
	decoder *hpack.Decoder
	block   block
	large   bool // the framer has a large buffer

	unacked int       // SETTINGS frames not yet acknowledged by the peer
	window  int64     // bytes that the peer may still send on the connection
	arrived []*stream // streams with readers to wake
	tasks   []task    // to pass to workers

	gotSettings atomic.Bool // the peer's settings were received
	inData      atomic.Bool // waiting for the rest of a DATA frame
}

func (in *inbox) init(c *conn, r *reader) {
	o := &c.o
	in.conn, in.reader = c, r
	in.block.maxBytes, in.block.maxFields = o.MaxHeaderBytes, o.MaxFields
	in.block.reset()
	in.decoder = hpack.NewDecoder(headerTable, func(f hpack.HeaderField) {
		if !in.block.add(f) {
			in.decoder.SetEmitEnabled(false)
		}
	})
	in.decoder.SetMaxStringLength(2 * o.MaxHeaderBytes)
	in.newFramer()
	in.window = firstWindow
}

func (in *inbox) newFramer() {
	in.framer = h2.NewFramer(nil, in.reader)
	in.framer.SetMaxReadFrameSize(maxFrame)
	in.framer.SetReuseFrames()
	in.large = false
}

// freeLarge frees the large buffers that large frames left. It is called between
// header blocks.
func (in *inbox) freeLarge() {
	if in.large {
		in.newFramer()
		in.forgetFragment()
	}
}

// forgetFragment makes the decoder drop its reference to the last fragment, by
// decoding a one-byte block.
func (in *inbox) forgetFragment() {
	in.decoder.SetEmitEnabled(false)
	_, _ = in.decoder.Write(methodGET)
	_ = in.decoder.Close()
}

// methodGET is a header block of one field of the static table.
var methodGET = []byte{0x82}

// park frees all buffers while nothing is read.
func (in *inbox) park() {
	in.large = true
	in.freeLarge()
	in.dropBuffers()
}

// readFrames reads and processes frames until the connection ends, and returns
// why. It returns nil if the goroutine parks.
func (in *inbox) readFrames() *Error {
	c := in.conn
	defer in.notifyReaders()
	for {
		if !in.wholeFrame() { // the read may block
			in.notifyReaders()
			in.freeLarge()
		}
		if c.out.repliesFull.Load() {
			in.notifyReaders()
			c.out.awaitReplyRoom()
		}
		fh, err := in.framer.ReadFrameHeader()
		if err == ErrParked {
			return nil
		}
		if err != nil {
			return in.readError(err)
		}
		if !in.gotSettings.Load() && (fh.Type != h2.FrameSettings || fh.Flags.Has(h2.FlagSettingsAck)) {
			return broken(h2.ErrCodeProtocol, "a preface that does not begin with SETTINGS")
		}
		var end *Error
		if fh.Type == h2.FrameData {
			end = in.onData(fh)
		} else {
			end = in.onFrame(fh)
		}
		if end != nil {
			return end
		}
		in.frameEnded()
	}
}

// notifyReaders wakes the readers of streams with new data, and starts the
// handlers of new streams. It runs only after everything that arrived together
// has been processed. So if the head, body and trailer of a message arrive
// together, they also leave together.
func (in *inbox) notifyReaders() {
	c := in.conn
	for _, s := range in.arrived {
		s.notified = false
		s.readable.Broadcast()
	}
	clear(in.arrived)
	in.arrived = in.arrived[:0]
	for _, t := range in.tasks {
		c.server.assign(t)
	}
	clear(in.tasks)
	in.tasks = in.tasks[:0]
}

// notifyLater makes the next notifyReaders wake the reader of s. s.c.mu is held.
func (s *stream) notifyLater() {
	if s.server != nil {
		if ready := s.server.takeReadyLocked(); ready != nil {
			s.c.in.tasks = append(s.c.in.tasks, task{s.server, ready})
			return
		}
	}
	if !s.notified {
		s.notified = true
		s.c.in.arrived = append(s.c.in.arrived, s)
	}
}

// readError converts an error of the framer to a connection error.
func (in *inbox) readError(err error) *Error {
	var code h2.ConnectionError
	switch {
	case in.err != nil:
		return &Error{Err: in.err}
	case errors.As(err, &code):
		reason := "a frame that is not allowed here"
		if d := in.framer.ErrorDetail(); d != nil {
			reason = d.Error()
		}
		return broken(h2.ErrCode(code), reason)
	case errors.Is(err, h2.ErrFrameTooLarge):
		return broken(h2.ErrCodeFrameSize, "a frame larger than allowed")
	default: // io.ErrUnexpectedEOF: a field of the frame is cut short
		return broken(h2.ErrCodeFrameSize, "a frame that is too short")
	}
}

// An outcome is the work left for a frame after c.mu is released.
type outcome struct {
	ends      []streamEnd
	streamErr *Error // why a stream was refused
	connErr   *Error // why the connection ends
}

// conclude does the work left for a frame. c.mu is not held.
func (in *inbox) conclude(o outcome) *Error {
	c := in.conn
	if len(o.ends) > 0 {
		c.notifyEnds(o.ends)
	}
	if o.streamErr != nil && c.server != nil && c.o.Refused != nil {
		c.o.Refused(o.streamErr)
	}
	return o.connErr
}

// refuseLocked resets a stream for a fault of the peer. The stream need not
// exist. c.mu is held.
func (c *conn) refuseLocked(id uint32, streamErr *Error) outcome {
	o := outcome{streamErr: streamErr}
	if s := c.streams[id]; s != nil {
		o.ends = []streamEnd{s.resetLocked(streamErr.Code, streamErr)}
	} else {
		c.resetLocked(id, streamErr.Code)
	}
	o.connErr = c.abuse.spend(streamsAccount, c.refusalCost(streamErr))
	return o
}

// refusalCost returns the cost to the peer of a stream that is reset for a fault.
func (c *conn) refusalCost(fault *Error) int {
	if c.server != nil && fault.Code == h2.ErrCodeProtocol {
		return malformedCost
	}
	return 1
}

// refuse is refuseLocked for callers that do not hold c.mu.
func (in *inbox) refuse(id uint32, streamErr *Error) *Error {
	c := in.conn
	c.mu.Lock()
	o := c.refuseLocked(id, streamErr)
	c.mu.Unlock()
	return in.conclude(o)
}
