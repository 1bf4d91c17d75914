package splice

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

const (
	// chunk is how much is read at once from a connection that is not in full
	// flow, and the most that one is left with which stops taking.
	chunk = 128 << 10

	// most is how much is read at once from one in full flow. The more, the
	// fewer times are its peers woken.
	most = 16 * chunk

	// round is what the connections in full flow move between them, each at
	// least a chunk, before the first has its turn again.
	round = 4 * most

	// clogged is how much may be queued for a side before it is not read from
	// either. Reading can queue something: a KeyUpdate wants an answer.
	clogged = 2 * chunk
)

// A workspace is what bytes pass through within one turn.
type workspace struct {
	now  time.Duration // of the Engine's clock, as the turn began
	fair int           // how much may pass in one turn

	in, plain, out []byte
}

func newWorkspace(size int) *workspace {
	return &workspace{
		fair: size,
		in:   make([]byte, size),
		// With what TLS held back of a record it may be more than was read.
		plain: make([]byte, size+chunk/4),
		out:   make([]byte, 0, size+chunk/4),
	}
}

// divide makes a workspace fair to n connections in full flow.
func (w *workspace) divide(n int) {
	w.fair = min(max(round/max(n, 1), chunk), len(w.in))
}

// A direction carries one of a splice's two streams.
type direction struct {
	from, to *side
	back     *direction // the other one
	moves    *progress
	bytes    uint64         // that the kernel took to deliver
	total    *atomic.Uint64 // of whoever counts, likewise; may be nil

	unsent  int    // bytes whose records are queued
	first   func() // called as the first bytes are delivered; may be nil
	begun   bool
	flows   bool  // the last read was full: it is in full flow
	eof     bool  // from has ended its stream
	broken  error // from's stream cannot go on
	failure error // likewise, for whoever asks
	over    bool
}

// turn does all that can be done without waiting, up to a fair amount, and
// reports whether there is more.
func (s *Splice) turn(w *workspace) (more bool) {
	defer s.rescue()
	if s.closed {
		return false
	}
	s.unqueue(&s.toUpstream, w.now)
	s.unqueue(&s.toClient, w.now)
	if s.closing {
		s.closeDelivered(w.now)
		return false
	}
	more = s.carry(&s.toUpstream, w)
	return s.carry(&s.toClient, w) || more
}

// unqueue sends what is queued for the direction's destination.
func (s *Splice) unqueue(d *direction, now time.Duration) {
	if s.closed || d.to.queue.empty() {
		return
	}
	n, err := d.to.sendQueued()
	if err != nil && (s.closing || d.back.broken != nil) {
		d.to.queue.release(&s.engine.buffers) // how the splice ended is known
		return
	}
	if err != nil {
		s.cannotWrite(d, err, now)
		return
	}
	if n > 0 && !d.over {
		if d.to.tls == nil {
			d.unsent -= n
			s.delivered(d, n)
		} else if d.to.queue.empty() {
			s.delivered(d, d.unsent)
			d.unsent = 0
		}
		d.moves.last, d.moves.waits = now, !d.to.queue.empty()
	}
}

// carry moves a direction's bytes until it has to wait or has had its turn.
func (s *Splice) carry(d *direction, w *workspace) (more bool) {
	for moved := 0; !d.over && !s.closing && !s.closed; {
		switch {
		case d.broken != nil:
			// What was read is not all that was sent: it is delivered, and then
			// a reset says so. With one stream broken the other has no reader.
			s.finish(d.from.called(d.broken), d.broken, w.now)
			return false
		case !d.to.queue.empty():
			return false
		case d.eof:
			s.passEnd(d, w.now)
			continue
		case d.from.queue.len() > clogged:
			return false
		case d.begun && !d.from.readable:
			return false
		case moved >= w.fair:
			return true
		}
		p := d.from.early
		if d.begun || (len(p) == 0 && d.from.tls == nil) {
			p = w.in[:d.appetite(w)]
			n, err := d.from.receive(p)
			d.flows = n == len(p)
			if err == syscall.EAGAIN {
				d.begun = true
				return false
			}
			if err != nil {
				d.end(err)
				continue
			}
			p = p[:n]
		}
		d.begun, d.from.early = true, nil
		d.moves.last = w.now
		moved += max(len(p), 1)
		s.forward(d, p, w)
	}
	return false
}

// flows reports whether the splice is in full flow.
func (s *Splice) flows() bool { return s.toUpstream.flows || s.toClient.flows }

// wantsMuch reports whether a turn may move much now, and not only what was
// left over, as of a connection that hardly takes anything any more.
func (s *Splice) wantsMuch() bool { return s.toUpstream.wantsMuch() || s.toClient.wantsMuch() }

func (d *direction) wantsMuch() bool { return d.flows && d.from.readable && d.to.queue.empty() }

// appetite returns how much to read at once: what the destination can take, so
// that little is left if it stops taking.
func (d *direction) appetite(w *workspace) int {
	if !d.flows || w.fair <= chunk {
		return chunk
	}
	return min(max(d.to.room(), chunk), w.fair) // which is what w has room for
}

// end notes what reading from the direction's source ended with.
func (d *direction) end(err error) {
	if err == io.EOF {
		d.eof = true
	} else {
		d.broken, d.failure = err, err
	}
}

// forward delivers p, which was read from the direction's source, as far as it
// can be decrypted.
func (s *Splice) forward(d *direction, p []byte, w *workspace) {
	if d.from.tls == nil {
		s.deliver(d, p, w)
		return
	}
	d.from.in = p
	var err error
	n := 0
	for err == nil {
		if n == len(w.plain) { // more was held back than a record, once
			w.plain = append(w.plain, make([]byte, chunk)...)
		}
		var m int
		m, err = d.from.tls.Read(w.plain[n:])
		n += m
	}
	d.from.in = nil // it would hold on to the workspace
	if !errors.Is(err, socket.ErrWouldBlock) {
		d.end(err)
	}
	s.unqueue(d.back, w.now) // TLS answers a KeyUpdate, and a stream that makes no sense
	s.deliver(d, w.plain[:n], w)
}

// deliver sends p to the direction's destination, or queues it.
func (s *Splice) deliver(d *direction, p []byte, w *workspace) {
	if len(p) == 0 {
		return
	}
	to := d.to
	out := p
	if to.tls != nil {
		to.out, to.gathering = w.out, true
		_, err := to.tls.Write(p)
		out, to.gathering = to.out, false
		w.out, to.out = out[:0], nil
		if err != nil {
			s.cannotWrite(d, err, w.now)
			return
		}
	}
	n, err := to.send(out)
	if err != nil {
		s.cannotWrite(d, err, w.now)
		return
	}
	switch {
	case to.queue.empty():
		s.delivered(d, len(p))
	case to.tls == nil:
		s.delivered(d, n)
		d.unsent = len(p) - n
		d.waits(w.now)
	default:
		d.unsent = len(p)
		d.waits(w.now)
	}
}

// waits notes that bytes are queued from now on.
func (d *direction) waits(now time.Duration) { d.moves.last, d.moves.waits = now, true }

// delivered counts n bytes.
func (s *Splice) delivered(d *direction, n int) {
	if n == 0 {
		return
	}
	if d.bytes == 0 && d.first != nil {
		d.first()
	}
	d.bytes += uint64(n)
	if d.total != nil {
		d.total.Add(uint64(n))
	}
}

// cannotWrite ends a direction whose destination takes no more. What that said
// before it went, such as why, may still be waiting to be read, so the other
// direction goes on to its own end.
func (s *Splice) cannotWrite(d *direction, err error, now time.Duration) {
	d.to.queue.release(&s.engine.buffers)
	s.note(d.to.called(err), err)
	s.over(d, now)
}

// passEnd ends the stream towards the direction's destination.
func (s *Splice) passEnd(d *direction, now time.Duration) {
	if !d.to.ending {
		if err := d.to.closeWrite(); err != nil {
			s.cannotWrite(d, err, now)
			return
		}
		if !d.to.queue.empty() {
			d.waits(now)
			return
		}
	}
	d.to.ended = true
	s.over(d, now)
}

// over is called as a direction ends.
func (s *Splice) over(d *direction, now time.Duration) {
	if d.over {
		return
	}
	d.over = true
	d.moves.waits = false
	if s.toUpstream.over && s.toClient.over {
		s.finish(Closed, nil, now)
		return
	}
	s.watch.startLinger(now)
}
