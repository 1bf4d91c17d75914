package http2

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	h2 "golang.org/x/net/http2"
)

const (
	maxFrame      = 16 << 10    // the largest payload that either side sends (RFC 9113, section 4.2)
	maxWindow     = 1<<31 - 1   // section 6.9.1
	firstWindow   = 65535       // section 6.9.2; of each stream, to begin with
	largestWindow = 1 << 20     // what a stream's grows to, if its reader keeps up
	maxGrowth     = 4 << 20     // by how much a connection's streams may have grown, together
	connWindow    = 16 << 20    // the connection's
	presumed      = 100         // streams that a server is thought to allow before it says
	remembered    = 64          // streams that were reset, of which more may still come
	lastReadTime  = time.Second // for the last that is read of a peer that takes no more
	headerTable   = 4096        // HPACK's dynamic tables
	maxContinued  = 64          // CONTINUATION frames of one block
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

var (
	errStalled = errors.New("the peer took nothing for too long")
	errDead    = errors.New("the peer did not answer a ping")
	errPanic   = errors.New("a panic")
)

// A conn is what both roles of a connection have in common.
//
// One goroutine reads (frames.go). Frames are sent through the outbox.
type conn struct {
	nc      net.Conn
	o       Options
	server  *ServerConn // this or client is nil
	client  *ClientConn
	workers sync.WaitGroup // goroutines but the one that reads

	in inbox

	mu      sync.Mutex
	err     *Error // why the connection is at its end; nil: it is not
	streams map[uint32]*stream
	lastID  uint32 // the latest stream's
	resets  resetLog

	out        outbox
	encoder    *encoder
	sendWindow int64
	peer       peerSettings

	grown     int   // by how much streams' windows have grown
	blocked   int   // streams that wait for the peer to open their window
	shutSince int64 // since when streams wait for the connection's window; 0: none does
	live      liveness
	idleSince int64
	parking   parking
	abuse     abuse
	timer     *time.Timer
}

// peerSettings are what the peer said that it allows (section 6.5.2).
type peerSettings struct {
	maxStreams      int
	window          int64 // of each stream, to begin with
	maxHeaderBytes  int64
	extendedConnect bool
}

// An ended stream is one of whose end its owner is yet to be told, when c.mu is
// no longer held.
type ended struct {
	stream *stream
	err    error
}

func (c *conn) init(nc net.Conn, early []byte, o Options) {
	c.nc = nc
	c.o = o.withDefaults()
	c.streams = make(map[uint32]*stream)
	c.in.init(c, newReader(nc, early))
	c.in.interrupted = c.interrupted
	c.out.init(nc, &c.mu, &c.workers, c.now)
	c.out.failed, c.out.tell, c.out.panicked = c.unwritableLocked, c.tell, c.panicked
	c.live.delivers, _ = nc.(deliverer)
	c.encoder = newEncoder()
	c.sendWindow = firstWindow
	c.peer = peerSettings{maxStreams: presumed, window: firstWindow, maxHeaderBytes: 1 << 62}
	c.idleSince = c.now()
	c.abuse = newAbuse(c.now)
}

// greet puts this side's settings and a large window for the connection in the
// outbox. It is called before anything else is put in.
func (c *conn) greet(preface string, settings ...h2.Setting) {
	settings = append(settings, h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: uint32(c.o.MaxHeaderBytes)})
	c.out.greet(preface, settings, connWindow-firstWindow)
	c.in.window = connWindow
	c.in.unacked = 1
}

func (c *conn) now() int64 { return c.in.now() }

// run reads until the connection is at its end, tells the peer so and closes
// it. It returns nil if that was as it should be. What preface reads, if it is
// not nil, comes first.
func (c *conn) run(preface func() *Error) error {
	c.mu.Lock()
	c.out.kick()
	c.timer = time.AfterFunc(c.tickPeriodLocked(), c.tick)
	c.mu.Unlock()
	return c.read(preface)
}

// read reads until the connection is at its end, or the goroutine is to leave.
func (c *conn) read(preface func() *Error) error {
	err := c.readGuarded(preface)
	if err == nil {
		c.in.park()
		return ErrParked
	}
	return c.end(err)
}

// readGuarded reads the preface, if there is one, and frames. A panic ends the
// connection and not the process.
func (c *conn) readGuarded(preface func() *Error) (err *Error) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
			err = &Error{Err: errPanic}
		}
	}()
	if preface != nil {
		if err := preface(); err != nil {
			return err
		}
	}
	return c.in.readFrames()
}

// end is run when reading has ended.
func (c *conn) end(err *Error) error {
	c.mu.Lock()
	if c.out.err != nil && errors.Is(err.Err, os.ErrDeadlineExceeded) {
		err = &Error{Err: c.out.err} // it has said nothing
	}
	clean := err.Err == io.EOF && len(c.streams) == 0 && c.in.settled.Load()
	gone := c.failLocked(err)
	err = c.err // that of whoever was first
	c.mu.Unlock()
	c.tell(gone)
	c.close(err)
	c.workers.Wait()
	if clean || errors.Is(err.Err, errClosed) || errors.Is(err.Err, errIdle) || errors.Is(err.Err, errRetired) {
		return nil
	}
	return err
}

// failLocked puts the connection at its end, if it is not: its streams fail,
// and the peer is told why if this side ends it. The caller must tell of what
// is returned. c.mu is held.
func (c *conn) failLocked(err *Error) (gone []ended) {
	if c.err != nil {
		return nil
	}
	c.err = err
	err.Connection = true
	for _, s := range c.streams {
		e := *err
		e.Unprocessed = s.client != nil && s.unsentLocked()
		gone = append(gone, ended{s, &e})
		s.failLocked(&e)
	}
	if c.client != nil {
		c.out.drop()         // requests in it were said to be unprocessed
		c.out.room.wakeAll() // who waits to send one is not among the streams yet
	}
	c.out.end()
	if err.mayBeTold() && (c.server != nil || c.out.begun) { // a client begins with its preface, or says nothing
		last := c.lastID
		if c.client != nil {
			last = 0 // servers open no streams
		}
		c.out.goAway(last, err.Code, err.Reason)
	}
	if c.server != nil {
		c.server.workerPool.wanted.Broadcast()
	}
	_ = c.nc.SetReadDeadline(longAgo) // the reader shall see to the rest
	if c.parking == parked {
		c.o.Wake()
	}
	return gone
}

// fail ends the connection. c.mu is not held.
func (c *conn) fail(err *Error) {
	c.mu.Lock()
	gone := c.failLocked(err)
	c.mu.Unlock()
	c.tell(gone)
}

// Close ends the connection and all its streams at once. Serve or Run returns
// when that is done. It may be called repeatedly, by any goroutine.
func (c *conn) Close() {
	c.fail(&Error{Err: errClosed})
	c.nc.Close()
}

// tell tells their owners of streams that have ended. c.mu is not held.
func (c *conn) tell(gone []ended) {
	for _, e := range gone {
		if e.stream.server != nil {
			e.stream.server.tellGone(e.err)
		}
	}
	if c.client != nil && gone != nil {
		c.client.changed()
	}
}

// tickPeriodLocked returns when tick is to run next. c.mu is held.
func (c *conn) tickPeriodLocked() time.Duration {
	shortest := min(c.o.HeaderTimeout, c.o.IdleTimeout, c.o.StallTimeout, c.o.PingInterval, c.o.PingTimeout)
	if c.o.MaxAge > 0 {
		shortest = min(shortest, c.o.MaxAge)
	}
	if c.o.BodyTimeout > 0 {
		shortest = min(shortest, c.o.BodyTimeout)
	}
	most := 5 * time.Second
	if c.o.Wake != nil && c.parking != parked {
		most = parkTime
	}
	return min(max(shortest/4, 10*time.Millisecond), most)
}

// tick looks whether a deadline has passed. All are looked at from time to time
// rather than each having its timer: they are set for every frame and hardly
// ever pass.
func (c *conn) tick() {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	gone, dead := c.look()
	c.tell(gone)
	if dead != nil {
		c.fail(&Error{Err: dead})
		c.nc.Close() // nothing gets through to the peer
	}
}

// look is tick with c.mu held. It returns what tick does without.
func (c *conn) look() (gone []ended, dead error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closed {
		return nil, nil
	}
	c.timer.Reset(c.tickPeriodLocked())
	if c.err == nil {
		gone, dead = c.tickLocked(c.now())
	} else {
		c.endStalledWriteLocked(c.now())
	}
	return gone, dead
}

func (c *conn) tickLocked(now int64) (gone []ended, dead error) {
	past := func(since int64, d time.Duration) bool { return now-since > int64(d) }
	if dead = c.liveLocked(now); dead != nil {
		return nil, dead
	}
	c.shedLocked(now)
	begun, patience := c.in.begun.Load(), c.o.HeaderTimeout
	if begun != 0 && c.in.inData.Load() {
		begun, patience = max(begun, c.in.last.Load()), c.o.StallTimeout // each byte of a body counts
	}
	switch {
	case !c.in.settled.Load() && past(0, c.o.HeaderTimeout), begun != 0 && past(begun, patience):
		return c.failLocked(broken(h2.ErrCodeNo, "what it began did not come in time")), nil
	case c.finishedLocked(now):
		return c.failLocked(&Error{Err: errIdle}), nil
	}
	gone = c.stalledLocked(now)
	if c.server != nil {
		return append(gone, c.server.tickLocked(now)...), nil
	}
	return append(gone, c.client.tickLocked(now)...), nil
}

// idleLocked reports whether the connection has nothing to do. c.mu is held.
func (c *conn) idleLocked() bool {
	return len(c.streams) == 0 && (c.server == nil || c.server.running == 0) && (c.client == nil || c.client.open == 0)
}

// checkIdleLocked is for when a stream has ended: if it was the last, the connection
// is idle, or at its end. c.mu is held.
func (c *conn) checkIdleLocked() {
	if !c.idleLocked() {
		return
	}
	c.idleSince = c.now()
	c.encoder.shed()
	if c.server != nil && c.server.drained() || c.client != nil && c.client.retired {
		c.failLocked(&Error{Err: errRetired}) // there is no stream to tell of
	}
}

// unwritableLocked handles a failed write. A server that refuses what it has
// received says so and closes, and answers what comes then with a reset: so what
// it said is read first. Requests that have not left fail at once, for another
// connection to send. The caller must tell the owners of the streams that are
// returned. c.mu is held.
func (c *conn) unwritableLocked(err error) (gone []ended) {
	if c.client == nil || c.err != nil || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		gone = c.failLocked(&Error{Err: err})
		c.out.abandon(err)
		return gone
	}
	for _, s := range c.streams {
		if s.unsentLocked() {
			e := &Error{Connection: true, Unprocessed: true, Err: err}
			gone = append(gone, ended{s, e})
			s.failLocked(e)
		}
	}
	c.out.abandon(err)
	_ = c.nc.SetReadDeadline(time.Now().Add(lastReadTime)) // fails only if it is closed, and then so does reading
	return gone
}

// panicked ends the connection because one of its goroutines panicked. c.mu is
// not held.
func (c *conn) panicked(p any) {
	if c.o.Panicked != nil {
		c.o.Panicked(p, debug.Stack())
	}
	c.fail(&Error{Err: errPanic})
	c.mu.Lock()
	c.out.abandon(errPanic)
	c.out.stopped()
	c.mu.Unlock()
	c.nc.Close()
}
