package http2

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
)

const (
	// bulkLimit is the number of bytes of heads and bodies in an outbox above
	// which streams must wait.
	bulkLimit = 64 << 10

	// replyLimit is the number of bytes of other frames above which reading
	// stops: most of these frames answer something that the peer sent.
	replyLimit = 16 << 10

	smallBuffer = 4 << 10
	largeBuffer = bulkLimit + replyLimit + maxFrame
)

var smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// An outbox is the only writer of a connection. It collects frames in batches,
// which a goroutine of its own writes to the socket. That goroutine waits for
// further frames for a while: its stack has already grown, and growing one costs
// more than most writes. The methods that queue frames are in frameout.go.
//
// No other code keeps an offset into its buffers. A frame that may have to
// change later is named by a token, which becomes void once its batch has left
// or was dropped.
//
// Methods are called with mu held unless they say otherwise.
type outbox struct {
	mu      *sync.Mutex // the connection's
	nc      net.Conn
	workers *sync.WaitGroup
	clock   func() int64

	// failed handles a failed write, with mu held. It returns streams to pass
	// to notifyEnds, which is called without mu. panicked handles a panic of the
	// writing goroutine, without mu.
	failed     func(error) []streamEnd
	notifyEnds func([]streamEnd)
	panicked   func(any)

	buf         []byte // queued frames
	spare       []byte // second buffer, swapped with buf
	batch       uint64 // number of the batch in buf; earlier batches have left or were dropped
	begun       bool   // a batch has left, perhaps in part
	bulk        int    // bytes of buf that are heads and bodies
	replies     int    // bytes of buf that are anything else
	repliesFull atomic.Bool

	bodyQueue waitQueue // streams that wait to send a frame of a body
	room      waitQueue // streams that wait to queue a head or trailer

	err         error         // why sending has stopped, or nil
	ending      bool          // the connection is ending: the reader must not wait
	closed      bool          // frames are no longer accepted
	sending     bool          // frames are being written, or are about to be
	running     bool          // the writing goroutine exists
	used        bool          // the writing goroutine got frames since the last call of release
	released    bool          // the writing goroutine must end unless there are frames
	wake        chan struct{} // makes the writing goroutine check for frames and for released
	changed     sync.Cond
	sendFunc    func() // o.send
	writing     int64  // when the current write began, or 0
	writingBulk bool   // the batch being written has heads or bodies
	lastBulk    int64  // when the last write of heads or bodies returned
}

// A token names a frame in an outbox. The zero token names no frame.
type token struct {
	batch uint64
	at    int // offset of the frame in the batch
}

func (o *outbox) init(nc net.Conn, mu *sync.Mutex, workers *sync.WaitGroup, clock func() int64) {
	o.nc, o.mu, o.workers, o.clock = nc, mu, workers, clock
	o.batch = 1
	o.changed.L = mu
	o.wake = make(chan struct{}, 1)
	o.sendFunc = o.send
}

// full reports whether heads and bodies must wait.
func (o *outbox) full() bool { return o.bulk >= bulkLimit }

// waits reports whether the frame is still in the outbox, with no part of it
// written.
func (o *outbox) waits(t token) bool { return t.batch == o.batch }

// endStream sets END_STREAM on a HEADERS or DATA frame. It returns false if the
// frame has left the outbox.
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

// startSending makes the writing goroutine write if there are frames to send.
func (o *outbox) startSending() {
	if o.sending || len(o.buf) == 0 || o.closed {
		return
	}
	o.sending, o.used, o.released = true, true, false
	if o.running {
		o.signal()
		return
	}
	o.running = true
	o.workers.Add(1)
	go o.sendFunc()
}

// send writes batches as long as there are any, and waits for more. It runs in
// its own goroutine, without mu.
func (o *outbox) send() {
	defer o.workers.Done()
	defer func() {
		if p := recover(); p != nil {
			o.panicked(p)
		}
	}()
	for {
		runtime.Gosched() // let goroutines that are about to queue a frame join the batch
		p, ends, done := o.next(nil, nil)
		for p != nil {
			_, err := o.nc.Write(p)
			p, ends, done = o.next(p, err)
		}
		o.notifyEnds(ends)
		if done {
			return
		}
		<-o.wake // without mu, which the waking goroutine holds
	}
}

// signal wakes the writing goroutine if it waits.
func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// release ends the writing goroutine if it had nothing to write since the last
// call.
func (o *outbox) release() {
	if o.running && !o.used {
		o.released = true
		o.signal()
	}
	o.used = false
}

// next returns the next batch to write, or nil if the outbox is empty; done
// reports that the writing goroutine must end then. written is the previous
// batch, and err the result of writing it. It is called without mu.
func (o *outbox) next(written []byte, err error) (p []byte, ends []streamEnd, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if written != nil {
		o.writing = 0
		if o.writingBulk {
			o.lastBulk = o.clock()
		}
		o.spare = written[:0]
	}
	if err != nil && o.err == nil {
		ends = o.failed(err)
	}
	if len(o.buf) == 0 || o.err != nil {
		o.stopped()
		o.running = o.err == nil && !o.closed && !o.released
		return nil, ends, !o.running
	}
	p = o.buf
	o.buf, o.spare = o.spare[:0], nil
	o.writingBulk = o.bulk > 0
	o.emptied()
	o.begun = true
	o.writing = max(o.clock(), 1)
	o.room.wakeAll()
	o.bodyQueue.wake()
	return p, nil, false
}

// stopped ends the sending and returns the buffers to their pools.
func (o *outbox) stopped() {
	freeBuffer(o.buf)
	freeBuffer(o.spare)
	o.buf, o.spare = nil, nil
	o.sending, o.writing = false, 0
	o.changed.Broadcast()
}

// emptied begins a new batch. Tokens of the old one become void.
func (o *outbox) emptied() {
	o.batch++
	o.bulk, o.replies = 0, 0
	if o.repliesFull.Load() {
		o.repliesFull.Store(false)
		o.changed.Broadcast()
	}
}

// drop discards the queued frames.
func (o *outbox) drop() {
	o.buf = o.buf[:0]
	o.emptied()
}

// abandon ends all sending because of err. It discards queued frames and every
// later one, voids all tokens, and wakes every waiting stream to see the error.
func (o *outbox) abandon(err error) {
	if o.err != nil {
		return
	}
	o.err = err
	o.signal()
	o.drop()
	o.room.wakeAll()
	o.bodyQueue.wakeAll()
}

// awaitReplyRoom blocks the reading goroutine while the peer does not read the
// answers to its frames. It is called without mu.
func (o *outbox) awaitReplyRoom() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.repliesFull.Load() {
		o.changed.Wait()
	}
}

// end marks the connection as ending: the reader no longer waits.
func (o *outbox) end() {
	o.ending = true
	if o.repliesFull.Load() {
		o.repliesFull.Store(false)
		o.changed.Broadcast()
	}
}

// close waits until everything is sent, bounded by a deadline of the socket,
// and rejects later frames. It is called without mu.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.sending {
		o.changed.Wait()
	}
	o.closed = true
	o.signal()
	o.drop()
	o.stopped()
}
