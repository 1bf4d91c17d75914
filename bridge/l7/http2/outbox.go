package http2

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// bulkLimit is how many bytes of heads and bodies may wait in an outbox
	// before streams must wait.
	bulkLimit = 64 << 10

	// replyLimit is how many bytes of other frames may wait before nothing more
	// is read from the peer: most of them answer something that it sent.
	replyLimit = 16 << 10

	smallBuffer = 4 << 10
	largeBuffer = bulkLimit + replyLimit + maxFrame
)

var smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// An outbox is the only writer of a connection. It collects frames in batches,
// and while there are any, one goroutine of its own writes them to the socket.
// frameout.go has the methods that put frames in.
//
// Nobody else keeps an offset into its buffers: a frame that may have to be
// changed later is named by a token, which is void once its batch has left or
// was dropped.
//
// Methods are called with mu held unless they say otherwise.
type outbox struct {
	mu      *sync.Mutex // the connection's
	nc      net.Conn
	workers *sync.WaitGroup
	clock   func() int64

	// failed handles a failed write, with mu held. It returns the streams whose
	// owners tell is to be called for, without mu. panicked handles a panic of
	// the goroutine that writes, without mu.
	failed   func(error) []ended
	tell     func([]ended)
	panicked func(any)

	buf     []byte // the frames that wait
	spare   []byte // buf's other buffer
	batch   uint64 // the number of buf; batches before it have left or were dropped
	begun   bool   // a batch has left, at least in part
	bulk    int    // bytes of buf that are heads and bodies
	replies int    // bytes of buf that are anything else
	crowded atomic.Bool

	turn turns // streams that wait for their turn to send a frame of a body
	room turns // streams that wait for room for a head or trailer

	err      error // why nothing is sent any more; nil: it is
	ending   bool  // the connection is ending: the reader must not be held up
	closed   bool  // nothing is put in any more
	sending  bool  // the goroutine that writes runs, or is about to
	changed  sync.Cond
	sendFunc func() // o.send
	writing  int64  // since when a write has been under way; 0: none is
	bulky    bool   // what is being written has heads or bodies
	lastBulk int64  // when the latest write of such returned
}

// A token names a frame in an outbox. The zero token names none.
type token struct {
	batch uint64
	at    int // where in the batch the frame begins
}

func (o *outbox) init(nc net.Conn, mu *sync.Mutex, workers *sync.WaitGroup, clock func() int64) {
	o.nc, o.mu, o.workers, o.clock = nc, mu, workers, clock
	o.batch = 1
	o.changed.L = mu
	o.sendFunc = o.send
}

// full reports whether heads and bodies must wait.
func (o *outbox) full() bool { return o.bulk >= bulkLimit }

// waits reports whether the frame is still in the outbox: nothing of it has
// been written.
func (o *outbox) waits(t token) bool { return t.batch == o.batch }

// endStream sets END_STREAM on a HEADERS or DATA frame, and reports false if the
// frame is not in the outbox any more.
func (o *outbox) endStream(t token) bool {
	if !o.waits(t) {
		return false
	}
	o.buf[t.at+4] |= flagEndStream
	return true
}

// reserve makes room for n bytes in buf.
func (o *outbox) reserve(n int) {
	need := len(o.buf) + n
	if need <= cap(o.buf) {
		return
	}
	old := o.buf
	switch {
	case need <= smallBuffer:
		o.buf = smallBuffers.Get().(*[smallBuffer]byte)[:0]
	case need <= largeBuffer:
		o.buf = largeBuffers.Get().(*[largeBuffer]byte)[:0]
	default:
		return // append allocates
	}
	o.buf = append(o.buf, old...)
	freeBuffer(old)
}

func freeBuffer(p []byte) {
	switch cap(p) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(p[:smallBuffer]))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(p[:largeBuffer]))
	}
}

// kick makes sure that the frames in the outbox are sent.
func (o *outbox) kick() {
	if o.sending || len(o.buf) == 0 || o.closed {
		return
	}
	o.sending = true
	o.workers.Add(1)
	go o.sendFunc()
}

// send writes batches until no frames are left. It is a goroutine of its own, and
// called without mu.
func (o *outbox) send() {
	defer o.workers.Done()
	defer func() {
		if p := recover(); p != nil {
			o.panicked(p)
		}
	}()
	runtime.Gosched() // whoever is about to put a frame in joins the batch
	p, gone := o.next(nil, nil)
	for p != nil {
		_, err := o.nc.Write(p)
		p, gone = o.next(p, err)
	}
	o.tell(gone)
}

// next returns the next batch to write; nil if there is none. written is the
// batch before it and err what writing that came to. It is called without mu.
func (o *outbox) next(written []byte, err error) (p []byte, gone []ended) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if written != nil {
		o.writing = 0
		if o.bulky {
			o.lastBulk = o.clock()
		}
		o.spare = written[:0]
	}
	if err != nil && o.err == nil {
		gone = o.failed(err)
	}
	if len(o.buf) == 0 || o.err != nil {
		o.stopped()
		return nil, gone
	}
	p = o.buf
	o.buf, o.spare = o.spare[:0], nil
	o.bulky = o.bulk > 0
	o.emptied()
	o.begun = true
	o.writing = max(o.clock(), 1)
	o.room.wakeAll()
	o.turn.wake()
	return p, nil
}

// stopped ends the sending: the buffers are returned to their pools.
func (o *outbox) stopped() {
	freeBuffer(o.buf)
	freeBuffer(o.spare)
	o.buf, o.spare = nil, nil
	o.sending, o.writing = false, 0
	o.changed.Broadcast()
}

// emptied begins a new batch: tokens of the old one are void.
func (o *outbox) emptied() {
	o.batch++
	o.bulk, o.replies = 0, 0
	if o.crowded.Load() {
		o.crowded.Store(false)
		o.changed.Broadcast()
	}
}

// drop drops the frames that wait.
func (o *outbox) drop() {
	o.buf = o.buf[:0]
	o.emptied()
}

// abandon ends all sending because of err: frames that wait are dropped, so are
// those that are put in from now on, every token is void, and every stream that
// waits looks again.
func (o *outbox) abandon(err error) {
	if o.err != nil {
		return
	}
	o.err = err
	o.drop()
	o.room.wakeAll()
	o.turn.wakeAll()
}

// awaitReplyRoom holds the reading goroutine up while the peer does not take
// the answers to what it sent. It is called without mu.
func (o *outbox) awaitReplyRoom() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.crowded.Load() {
		o.changed.Wait()
	}
}

// end says that the connection is ending: the reader is not held up any more.
func (o *outbox) end() {
	o.ending = true
	if o.crowded.Load() {
		o.crowded.Store(false)
		o.changed.Broadcast()
	}
}

// close waits until everything is sent, which a deadline of the socket bounds, and
// lets nothing more in. It is called without mu.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.sending {
		o.changed.Wait()
	}
	o.closed = true
	o.drop()
	o.stopped()
}
