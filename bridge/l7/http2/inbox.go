package http2

import (
	"errors"
	"sync/atomic"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An inbox is what the goroutine that reads a connection has to itself.
type inbox struct {
	conn *conn
	*reader
	framer  *h2.Framer // its writing half is not used
	decoder *hpack.Decoder
	block   block
	large   bool // the framer has a large buffer

	unacked int             // SETTINGS that the peer has not acknowledged
	window  int64           // what the peer may still send on the connection
	arrived []*stream       // to be told that something has come for them
	opened  []*ServerStream // to be given to a handler

	settled atomic.Bool // the peer's settings have come
	inData  atomic.Bool // a frame is being waited for that has bytes of a body
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

// shed drops the memory that large frames have left behind. It is called between
// header blocks.
func (in *inbox) shed() {
	if in.large {
		in.newFramer()
		in.forgetFragment()
	}
}

// forgetFragment makes the decoder drop its reference to what it decoded last: a
// field that is not emitted takes its place.
func (in *inbox) forgetFragment() {
	in.decoder.SetEmitEnabled(false)
	_, _ = in.decoder.Write(methodGET)
	_ = in.decoder.Close()
}

// methodGET is a header block of one field of the static table.
var methodGET = []byte{0x82}

// park is for when nothing is read for a while: no buffer is held.
func (in *inbox) park() {
	in.large = true
	in.shed()
	in.dropBuffers()
}

// readFrames reads and processes frames until the connection is at its end, and
// returns why it is; nil if the goroutine is to leave.
func (in *inbox) readFrames() *Error {
	c := in.conn
	defer in.notifyReaders()
	for {
		if !in.wholeFrame() { // it may have to wait
			in.notifyReaders()
			in.shed()
		}
		if c.out.crowded.Load() {
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
		if !in.settled.Load() && (fh.Type != h2.FrameSettings || fh.Flags.Has(h2.FlagSettingsAck)) {
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

// notifyReaders wakes those that wait for what has arrived, and starts the
// handlers of new streams. That is put off until all that came at once has been
// processed: a message then finds its head, body and trailer together, and leaves
// in one piece.
func (in *inbox) notifyReaders() {
	c := in.conn
	for _, s := range in.arrived {
		s.notified = false
		s.readable.Broadcast()
	}
	clear(in.arrived)
	in.arrived = in.arrived[:0]
	for _, s := range in.opened {
		c.server.assign(s)
	}
	clear(in.opened)
	in.opened = in.opened[:0]
}

// notifyLater has notifyReaders wake the reader of s.
func (s *stream) notifyLater() {
	if !s.notified {
		s.notified = true
		s.c.in.arrived = append(s.c.in.arrived, s)
	}
}

// readError makes an error of the framer's one of the connection's.
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
		return broken(h2.ErrCodeFrameSize, "a frame larger than is allowed")
	default: // io.ErrUnexpectedEOF, of what is shorter than it should be
		return broken(h2.ErrCodeFrameSize, "a frame that is too short")
	}
}

// An outcome is what is left to be done for a frame when c.mu is no longer held.
type outcome struct {
	gone []ended
	why  *Error // the fault of a stream that was refused
	end  *Error // the connection's
}

// conclude does what is left to be done for a frame. c.mu is not held.
func (in *inbox) conclude(o outcome) *Error {
	c := in.conn
	if len(o.gone) > 0 {
		c.tell(o.gone)
	}
	if o.why != nil && c.server != nil && c.o.Refused != nil {
		c.o.Refused(o.why)
	}
	return o.end
}

// refuseLocked resets a stream, whether it exists or not, for what the peer did.
// c.mu is held.
func (c *conn) refuseLocked(id uint32, why *Error) outcome {
	o := outcome{why: why}
	if s := c.streams[id]; s != nil {
		o.gone = []ended{s.resetLocked(why.Code, why)}
	} else {
		c.resetLocked(id, why.Code)
	}
	o.end = c.abuse.spend(streamsAccount, 1)
	return o
}

// refuse is refuseLocked without c.mu.
func (in *inbox) refuse(id uint32, why *Error) *Error {
	c := in.conn
	c.mu.Lock()
	o := c.refuseLocked(id, why)
	c.mu.Unlock()
	return in.conclude(o)
}
