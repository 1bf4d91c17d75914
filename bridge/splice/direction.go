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
	// chunk is the size of one read from an interactive connection, and the most that
	// stays queued for a peer that stops reading.
	chunk = 128 << 10

	// bulkChunk is the largest read from a bulk connection. A connection is bulk if
	// its last read was full. Larger reads wake its peers less often.
	bulkChunk = 16 * chunk

	// bulkRound is how much all bulk connections of a loop move in one round. Each
	// moves at least a chunk.
	bulkRound = 4 * bulkChunk

	// maxQueued is how many bytes may be queued for a side before the splice stops
	// reading from that side. Reading can queue bytes: TLS answers a KeyUpdate.
	maxQueued = 2 * chunk
)

// A workspace holds the buffers of one turn.
type workspace struct {
	now    time.Duration // when the turn began, on the Engine's clock
	budget int           // bytes that one direction may move in one turn

	in, plain, out []byte
}

func newWorkspace(size int) *workspace {
	return &workspace{
		budget: size,
		in:     make([]byte, size),
		// plain is larger than in, because TLS may hold part of a record from an
		// earlier read.
		plain: make([]byte, size+chunk/4),
		out:   make([]byte, 0, size+chunk/4),
	}
}

// share sets the budget of one of n bulk connections.
func (w *workspace) share(n int) {
	w.budget = min(max(bulkRound/max(n, 1), chunk), len(w.in))
}

// A direction carries one of a splice's two streams.
type direction struct {
	from, to *side
	reverse  *direction // the opposite direction
	progress *progress
	bytes    uint64         // bytes that the kernel accepted for delivery
	total    *atomic.Uint64 // the caller's counter of these bytes; may be nil

	unsent   int    // bytes of plaintext whose records are queued
	onFirst  func() // called when the first bytes are delivered; may be nil
	started  bool
	bulk     bool // the last read filled its buffer
	flood    socket.FloodMeter
	answered uint64 // bytes of the reverse direction at the last read
	eof      bool   // the source ended its stream
	broken   error  // why the source's stream failed
	failure  error  // like broken, kept for Result
	done     bool
}

// turn moves bytes both ways without blocking, up to the workspace's budget. It reports
// whether more can be moved at once.
func (s *Splice) turn(w *workspace) (more bool) {
	defer s.recoverPanic()
	if s.closed {
		return false
	}
	s.flush(&s.toUpstream, w.now)
	s.flush(&s.toClient, w.now)
	if s.closing {
		s.closeDelivered(w.now)
		return false
	}
	s.checkReset(&s.toUpstream, w.now)
	s.checkReset(&s.toClient, w.now)
	more = s.carry(&s.toUpstream, w)
	return s.carry(&s.toClient, w) || more
}

// flush sends the queue of the direction's destination.
func (s *Splice) flush(d *direction, now time.Duration) {
	if s.closed || d.to.queue.empty() {
		return
	}
	n, err := d.to.sendQueued()
	if err != nil && (s.closing || d.reverse.broken != nil) {
		d.to.queue.release(&s.engine.buffers) // the ending is already set
		return
	}
	if err != nil {
		s.writeFailed(d, err, now)
		return
	}
	if n > 0 && !d.done {
		if d.to.tls == nil {
			d.unsent -= n
			s.delivered(d, n)
		} else if d.to.queue.empty() {
			s.delivered(d, d.unsent)
			d.unsent = 0
		}
		d.progress.last, d.progress.queued = now, !d.to.queue.empty()
	}
}

// carry moves a direction's bytes until it would block or has spent its budget.
func (s *Splice) carry(d *direction, w *workspace) (more bool) {
	for moved := 0; !d.done && !s.closing && !s.closed; {
		switch {
		case d.broken != nil:
			// Deliver the bytes that were read, then forward the failure as a reset.
			// The opposite stream has lost its reader, so it ends too.
			s.finish(d.from.endingOf(d.broken), d.broken, w.now)
			return false
		case !d.to.queue.empty():
			return false
		case d.eof:
			s.forwardEnd(d, w.now)
			continue
		case d.from.queue.len() > maxQueued:
			return false
		case d.started && !d.from.readable:
			return false
		case moved >= w.budget:
			return true
		}
		p := d.from.early
		if d.started || (len(p) == 0 && d.from.tls == nil) {
			p = w.in[:d.readSize(w)]
			n, err := d.from.receive(p)
			d.bulk = n == len(p)
			if err == syscall.EAGAIN {
				d.started = true
				return false
			}
			if err != nil {
				d.readEnded(err)
				continue
			}
			p = p[:n]
		}
		d.started, d.from.early = true, nil
		d.progress.last = w.now
		moved += max(len(p), 1)
		n := len(p)
		s.forward(d, p, w)
		s.readFrom(d, n, w.now)
	}
	return false
}

// checkReset ends the splice if the direction's source has reset its connection after it
// ended its stream. Nothing reads that source any more, and while the other side is
// silent nothing is written to it either.
func (s *Splice) checkReset(d *direction, now time.Duration) {
	x := d.from
	if !d.done || !d.eof || !x.readToEAGAIN || x.ending || s.closing || s.closed {
		return
	}
	x.readable, x.readToEAGAIN = false, false
	if socket.WasReset(x.fd) {
		x.dead, d.failure = true, syscall.ECONNRESET
		s.finish(x.reset, syscall.ECONNRESET, now)
	}
}

// isBulk reports whether either direction is bulk traffic.
func (s *Splice) isBulk() bool { return s.toUpstream.bulk || s.toClient.bulk }

// canMoveBulk reports whether a turn may move a bulk read now. It cannot while bytes
// are queued for a peer that has almost stopped reading.
func (s *Splice) canMoveBulk() bool { return s.toUpstream.canMoveBulk() || s.toClient.canMoveBulk() }

func (d *direction) canMoveBulk() bool { return d.bulk && d.from.readable && d.to.queue.empty() }

// readSize returns how much to read at once: what the destination's socket can hold, so
// that little stays queued if the destination stops reading.
func (d *direction) readSize(w *workspace) int {
	if !d.bulk || w.budget <= chunk {
		return chunk
	}
	return min(max(d.to.room(), chunk), w.budget) // w.in holds at least that much
}

// readEnded records the error of reading from the direction's source.
func (d *direction) readEnded(err error) {
	if err == io.EOF {
		d.eof = true
	} else {
		d.broken, d.failure = err, err
	}
}

// forward decrypts p, which was read from the direction's source, and delivers the
// plaintext.
func (s *Splice) forward(d *direction, p []byte, w *workspace) {
	if d.from.tls == nil {
		s.deliver(d, p, w)
		return
	}
	d.from.in = p
	records := socket.MeterOf(d.from.sock)
	var err error
	n := 0
	for err == nil {
		if n == len(w.plain) { // TLS held back more than one record
			w.plain = append(w.plain, make([]byte, chunk)...)
		}
		var m int
		m, err = d.from.tls.Read(w.plain[n:])
		records.Data(m)
		n += m
	}
	d.from.in = nil // in would keep the workspace alive
	if !errors.Is(err, socket.ErrWouldBlock) {
		d.readEnded(err)
	}
	s.flush(d.reverse, w.now) // TLS answers a KeyUpdate, and sends an alert if the stream is invalid
	s.deliver(d, w.plain[:n], w)
}

// deliver sends p to the direction's destination and queues what the kernel does not
// accept.
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
			s.writeFailed(d, err, w.now)
			return
		}
	}
	n, err := to.send(out)
	if err != nil {
		s.writeFailed(d, err, w.now)
		return
	}
	switch {
	case to.queue.empty():
		s.delivered(d, len(p))
	case to.tls == nil:
		s.delivered(d, n)
		d.unsent = len(p) - n
		d.markQueued(w.now)
	default:
		d.unsent = len(p)
		d.markQueued(w.now)
	}
}

// markQueued records that bytes are queued from now on.
func (d *direction) markQueued(now time.Duration) { d.progress.last, d.progress.queued = now, true }

// delivered counts n bytes that the kernel accepted.
func (s *Splice) delivered(d *direction, n int) {
	if n == 0 {
		return
	}
	if d.bytes == 0 && d.onFirst != nil {
		d.onFirst()
	}
	d.bytes += uint64(n)
	if d.total != nil {
		d.total.Add(uint64(n))
	}
}

// writeFailed ends a direction whose destination accepts no more bytes. The destination
// may have sent an explanation before it closed, so the opposite direction continues to
// its own end.
func (s *Splice) writeFailed(d *direction, err error, now time.Duration) {
	d.to.queue.release(&s.engine.buffers)
	s.setEnding(d.to.endingOf(err), err)
	s.finishDirection(d, now)
}

// forwardEnd ends the stream toward the direction's destination.
func (s *Splice) forwardEnd(d *direction, now time.Duration) {
	if !d.to.ending {
		if err := d.to.closeWrite(); err != nil {
			s.writeFailed(d, err, now)
			return
		}
		if !d.to.queue.empty() {
			d.markQueued(now)
			return
		}
	}
	d.to.ended = true
	s.finishDirection(d, now)
}

// finishDirection ends one direction, and the splice if the opposite direction has
// ended too.
func (s *Splice) finishDirection(d *direction, now time.Duration) {
	if d.done {
		return
	}
	d.done = true
	d.progress.queued = false
	if s.toUpstream.done && s.toClient.done {
		s.finish(Closed, nil, now)
		return
	}
	s.watch.startLinger(now)
}
