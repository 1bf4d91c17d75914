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
	maxFrame        = 16 << 10    // largest payload of a frame, in both directions (RFC 9113, section 4.2)
	maxWindow       = 1<<31 - 1   // largest flow-control window (section 6.9.1)
	firstWindow     = 65535       // initial window of a stream (section 6.9.2)
	largestWindow   = 1 << 20     // window of a stream whose reader keeps up
	maxGrowth       = 4 << 20     // total growth of a connection's stream windows
	connWindow      = 16 << 20    // window of the connection
	presumedStreams = 100         // streams assumed to be allowed until the server's settings arrive
	lastReadTime    = time.Second // for a last read after a write has failed
	headerTable     = 4096        // size of HPACK's dynamic tables
	maxContinued    = 64          // maximum CONTINUATION frames of one block
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

var (
	errStalled = errors.New("the peer stopped reading")
	errDead    = errors.New("the peer did not answer a ping")
	errPanic   = errors.New("a panic")
)

// A conn is the part of a connection that both roles share.
//
// One goroutine reads (frames.go). Frames are sent through the outbox.
type conn struct {
	nc      net.Conn
	o       Options
	server  *ServerConn // this or client is nil
	client  *ClientConn
	workers sync.WaitGroup // all goroutines except the reader

	in inbox

	mu      sync.Mutex
	err     *Error // why the connection ended, or nil
	streams map[uint32]*stream
	lastID  uint32 // the ID of the latest stream
	resets  resetLog

	out        outbox
	encoder    *encoder
	sendWindow int64
	peer       peerSettings

	grown             int   // total growth of stream windows
	blocked           int   // streams whose own window is shut
	windowClosedSince int64 // since when streams have waited for the connection's window, or 0
	live              liveness
	idleSince         int64
	parking           parking
	abuse             abuse
	timer             *time.Timer
}

// peerSettings are the limits that the peer announced (section 6.5.2).
type peerSettings struct {
	maxStreams      int
	window          int64 // initial window of a stream
	maxHeaderBytes  int64
	extendedConnect bool
}

// A streamEnd is a stream that has ended. Its owner is notified when c.mu is
// released.
type streamEnd struct {
	stream *stream
	err    error
}

func (c *conn) init(nc net.Conn, early []byte, o Options, maxStreams int) {
	c.nc = nc
	c.o = o.withDefaults(maxStreams)
	c.streams = make(map[uint32]*stream)
	c.in.init(c, newReader(nc, early))
	c.in.interrupted = c.interrupted
	c.out.init(nc, &c.mu, &c.workers, c.now)
	c.out.failed, c.out.notifyEnds, c.out.panicked = c.unwritableLocked, c.notifyEnds, c.panicked
	c.live.delivers, _ = nc.(deliverer)
	c.encoder = newEncoder()
	c.sendWindow = firstWindow
	c.peer = peerSettings{maxStreams: presumedStreams, window: firstWindow, maxHeaderBytes: 1 << 62}
	c.idleSince = c.now()
	c.abuse = newAbuse(c.now)
}

// queuePreface queues this side's settings and a large window for the connection. It
// is called before any other frame is queued.
func (c *conn) queuePreface(preface string, settings ...h2.Setting) {
	settings = append(settings, h2.Setting{ID: h2.SettingMaxHeaderListSize, Val: uint32(c.o.MaxHeaderBytes)})
	c.out.queuePreface(preface, settings, connWindow-firstWindow)
	c.in.window = connWindow
	c.in.unacked = 1
}

func (c *conn) now() int64 { return c.in.now() }

// run reads until the connection ends, sends the peer the reason and closes the
// connection. A normal end returns nil. If preface is not nil, it runs first.
func (c *conn) run(preface func() *Error) error {
	c.mu.Lock()
	c.out.startSending()
	c.timer = time.AfterFunc(c.tickPeriodLocked(), c.tick)
	c.mu.Unlock()
	return c.read(preface)
}

// read reads until the connection ends or the goroutine parks.
func (c *conn) read(preface func() *Error) error {
	err := c.readGuarded(preface)
	if err == nil {
		c.in.park()
		return ErrParked
	}
	return c.end(err)
}

// readGuarded reads the preface, if any, and frames. A panic ends only the
// connection.
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

// end closes the connection after reading has ended.
func (c *conn) end(err *Error) error {
	c.mu.Lock()
	if c.out.err != nil && errors.Is(err.Err, os.ErrDeadlineExceeded) {
		err = &Error{Err: c.out.err} // the peer sent no reason in time
	}
	clean := err.Err == io.EOF && len(c.streams) == 0 && c.in.gotSettings.Load()
	ends := c.failLocked(err)
	err = c.err // the first error is the one that counts
	c.mu.Unlock()
	c.notifyEnds(ends)
	c.close(err)
	c.workers.Wait()
	if clean || errors.Is(err.Err, errClosed) || errors.Is(err.Err, errIdle) || errors.Is(err.Err, errRetired) {
		return nil
	}
	return err
}

// failLocked ends the connection if it has not ended: its streams fail, and if
// this side ends it, the peer is sent the reason. The caller must pass the
// result to notifyEnds. c.mu is held.
func (c *conn) failLocked(err *Error) (ends []streamEnd) {
	if c.err != nil {
		return nil
	}
	c.err = err
	err.Connection = true
	for _, s := range c.streams {
		e := *err
		e.Unprocessed = s.client != nil && s.unsentLocked()
		ends = append(ends, streamEnd{s, &e})
		s.failLocked(&e)
	}
	if c.client != nil {
		c.out.drop()         // its requests have failed as unprocessed
		c.out.room.wakeAll() // streams that wait to send their head are not in c.streams yet
	}
	c.out.end()
	if err.canBeSent() && (c.server != nil || c.out.begun) { // a client may send nothing before its preface
		last := c.lastID
		if c.client != nil {
			last = 0 // servers open no streams
		}
		c.out.goAway(last, err.Code, err.Reason)
	}
	if c.server != nil {
		c.server.workerPool.wanted.Broadcast()
	}
	_ = c.nc.SetReadDeadline(longAgo) // the reader does the rest
	if c.parking == parked {
		c.o.Wake()
	}
	return ends
}

// fail ends the connection. c.mu is not held.
func (c *conn) fail(err *Error) {
	c.mu.Lock()
	ends := c.failLocked(err)
	c.mu.Unlock()
	c.notifyEnds(ends)
}

// Close ends the connection and all its streams at once. Serve or Run then
// returns. It may be called repeatedly, from any goroutine.
func (c *conn) Close() {
	c.fail(&Error{Err: errClosed})
	c.nc.Close()
}

// notifyEnds notifies the owners of ended streams. c.mu is not held.
func (c *conn) notifyEnds(ends []streamEnd) {
	for _, e := range ends {
		if e.stream.server != nil {
			e.stream.server.notifyGone(e.err)
		}
	}
	if c.client != nil && ends != nil {
		c.client.changed()
	}
}

// tickPeriodLocked returns the time until the next tick. A limit is enforced at most a
// twentieth late. An idle connection needs fewer ticks, because the time of its end is
// known. c.mu is held.
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
	period := shortest / 20
	if c.idleLocked() && c.in.gotSettings.Load() {
		period = shortest / 4
		if left := time.Duration(max(c.idleSince, c.out.lastBulk)-c.now()) + c.o.IdleTimeout; left >= 0 {
			period = min(period, left+1) // just after the idle timeout
		}
	}
	return min(max(period, 5*time.Millisecond), most)
}

// tick checks all deadlines periodically. They change with every frame and
// hardly ever pass, so a timer for each would cost more.
func (c *conn) tick() {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	ends, dead := c.checkDeadlines()
	c.notifyEnds(ends)
	if dead != nil {
		c.fail(&Error{Err: dead})
		c.nc.Close() // the peer is unreachable
	}
}

// checkDeadlines is the part of tick that needs c.mu. It returns the work for the part
// that does not.
func (c *conn) checkDeadlines() (ends []streamEnd, dead error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out.closed {
		return nil, nil
	}
	c.timer.Reset(c.tickPeriodLocked())
	if c.err == nil {
		ends, dead = c.tickLocked(c.now())
	} else {
		c.endStalledWriteLocked(c.now())
	}
	return ends, dead
}

func (c *conn) tickLocked(now int64) (ends []streamEnd, dead error) {
	past := func(since int64, d time.Duration) bool { return now-since > int64(d) }
	if dead = c.liveLocked(now); dead != nil {
		return nil, dead
	}
	c.freeLargeLocked(now)
	begun, limit := c.in.begun.Load(), c.o.HeaderTimeout
	if begun != 0 && c.in.inData.Load() {
		begun, limit = max(begun, c.in.last.Load()), c.o.StallTimeout // every byte of a body restarts the clock
	}
	switch {
	case !c.in.gotSettings.Load() && past(0, c.o.HeaderTimeout), begun != 0 && past(begun, limit):
		return c.failLocked(broken(h2.ErrCodeNo, "a preface, frame or header block took too long")), nil
	case c.finishedLocked(now):
		return c.failLocked(&Error{Err: errIdle}), nil
	}
	c.out.release()
	ends = c.stalledLocked(now)
	if c.server != nil {
		return append(ends, c.server.tickLocked(now)...), nil
	}
	return append(ends, c.client.tickLocked(now)...), nil
}

// idleLocked reports whether the connection has nothing to do. c.mu is held.
func (c *conn) idleLocked() bool {
	return len(c.streams) == 0 && (c.server == nil || c.server.running == 0) && (c.client == nil || c.client.open == 0)
}

// checkIdleLocked is called after a stream has ended. If it was the last, the
// connection becomes idle or ends. c.mu is held.
func (c *conn) checkIdleLocked() {
	if !c.idleLocked() {
		return
	}
	c.idleSince = c.now()
	c.encoder.freeLarge()
	if c.server != nil && c.server.drained() || c.client != nil && c.client.retired {
		c.failLocked(&Error{Err: errRetired}) // no streams are left to notify
	}
}

// unwritableLocked handles a failed write. A server that rejects a request may
// send the reason, close, and then answer later frames with a reset. So the
// connection first reads what the server sent. Requests that have not left fail
// at once, so that another connection can send them. The caller must pass the
// result to notifyEnds. c.mu is held.
func (c *conn) unwritableLocked(err error) (ends []streamEnd) {
	if c.client == nil || c.err != nil || !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		ends = c.failLocked(&Error{Err: err})
		c.out.abandon(err)
		return ends
	}
	for _, s := range c.streams {
		if s.unsentLocked() {
			e := &Error{Connection: true, Unprocessed: true, Err: err}
			ends = append(ends, streamEnd{s, e})
			s.failLocked(e)
		}
	}
	c.out.abandon(err)
	_ = c.nc.SetReadDeadline(time.Now().Add(lastReadTime)) // fails only on a closed connection, and then reading fails too
	return ends
}

// panicked ends the connection after a panic in one of its goroutines. c.mu is
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
