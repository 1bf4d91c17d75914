package l7

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/wire"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// lingerTime is how long, once one side of an upgraded connection has ended its
// stream, the other may stay silent.
const lingerTime = time.Minute

// tunnel carries bytes both ways after the upstream has changed to the protocol
// that the client asked for.
func (x *exchange) tunnel(b back) {
	if !policy.AcceptUpgrade(&x.response, x.facts.Request) || x.key != "" && !policy.UpgradeToConnect(&x.response, x.key) {
		x.drop(b, errUpgrade)
		x.failed(errUpgrade)
		return
	}
	policy.RemoveHopByHop(&x.response.Fields)
	x.ruleResponse()
	x.dated()
	x.code = x.response.Status
	x.noted.upgraded = true
	if err := x.front.Respond(&x.response, false); err != nil {
		x.drop(b, err)
		x.abort(err)
		return
	}
	f, ok1 := x.front.(*front1)
	c, ok2 := b.(*conn1)
	if ok1 && ok2 {
		if err := errors.Join(wire.Forward(&f.in, &c.out, &x.noted.fromClient), wire.Forward(&c.in, &f.out, &x.noted.toClient)); err != nil {
			x.drop(b, err)
			x.abort(err)
			return
		}
		// An end that was seen already would be seen by nobody else.
		if f.in.Err() == nil && c.in.Err() == nil {
			x.splice(f, c)
			return
		}
	}
	x.patient(b)
	var gaveUp atomic.Value
	t := newTunnel(upgradedIdle, lingerTime, func(how splice.Ending) {
		gaveUp.Store(string(how))
		x.fail(errOver)
	})
	x.uploading = true
	x.sending.Add(1)
	go func() {
		defer x.sending.Done()
		defer x.guard()
		if t.carry(x.front, b, &x.noted.fromClient) != nil {
			x.fail(errOver) // what the upstream was sent is not all there was
		}
	}()
	x.noted.ended = string(splice.Closed)
	err := t.carry(b, x.front, &x.noted.toClient)
	if !x.ended() { // else the client broke off, or a time limit passed
		x.noted.reason = streamReason(err)
		x.endpoint.NoteStreamEnd(x.noted.reason, err)
	}
	if err != nil {
		x.noted.ended = endCutOff
		x.abort(errOver) // and so the client
	}
	x.sending.Wait()
	t.stop()
	if how, ok := gaveUp.Load().(string); ok {
		x.noted.ended = how
	}
	x.drop(b, errOver)
}

// patient lets writes wait for as long as nothing may move at all.
func (x *exchange) patient(b back) {
	if _, ok := x.front.(*front1); ok { // a connection of HTTP/2 carries other streams too
		x.conn.direct.LimitWait(upgradedIdle)
	}
	if c, ok := b.(*conn1); ok {
		c.sock.LimitWait(upgradedIdle)
	}
}

// upgradedIdle is how long nothing may move on an upgraded connection.
const upgradedIdle = time.Hour

// splice lets an upgraded connection of HTTP/1.1 on both sides be carried as
// those of TCP listeners are.
func (x *exchange) splice(f *front1, c *conn1) {
	engine, err := x.server.splices.Engine()
	if err != nil {
		x.drop(c, err)
		x.abort(err)
		return
	}
	r := engine.Run(f.nc, c.nc, splice.Options{
		Idle: upgradedIdle, Linger: lingerTime,
		ToUpstream: &x.server.counters.fromClient, ToClient: &x.server.counters.toClient,
		Panicked: func(value any, stack []byte) {
			go x.server.intake.LogPanic(&f.conn.intake, value, stack) // as logging may block
		},
	})
	x.noted.ended = string(r.How)
	x.noted.reason = r.How.Reason()
	x.endpoint.NoteStreamEnd(x.noted.reason, r.Cause)
	x.noted.fromClient += r.ToUpstream
	x.noted.toClient += r.ToClient
	f.aborted.Store(true) // it is closed
	c.aborted.Store(true)
	x.detach()
	c.Done()
	if x.server.log.IsDebug() {
		x.server.log.Debug("upgraded connection ended", "client", x.facts.Client, "how", string(r.How),
			"to_upstream", r.ToUpstream, "to_client", r.ToClient)
	}
}

// A tunnel bounds how long nothing moves on an upgraded connection: for as long as
// idle, or linger once one side has ended its stream and nothing waits to be sent.
type tunnel struct {
	idle, linger time.Duration

	moved   atomic.Uint64 // counts what moves
	sending atomic.Int32  // directions in which something waits to be sent
	half    atomic.Bool   // one side has ended

	mu       sync.Mutex
	giveUp   func(how splice.Ending)
	timer    *time.Timer
	over     bool
	seen     uint64 // moved, as of the latest look
	seenHalf bool
	since    time.Time // when something had moved last
}

// A source and a sink are what the directions of a tunnel have of fronts and
// backs.
type source interface {
	Read() ([]byte, error)
	Buffered() bool
}

type sink interface {
	Write(p []byte) error
	Flush() error
	End(trailer message.Fields) error
}

// newTunnel returns a tunnel. giveUp must end both sides; it is given how the tunnel
// ended.
func newTunnel(idle, linger time.Duration, giveUp func(how splice.Ending)) *tunnel {
	t := &tunnel{idle: idle, linger: linger, giveUp: giveUp, since: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(min(idle, linger)/tunnelLooks, t.look)
	return t
}

// tunnelLooks is how often the shortest limit of a tunnel is divided to look whether
// it has passed.
const tunnelLooks = 32

// look looks whether anything has moved.
func (t *tunnel) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	now := time.Now()
	if moved := t.moved.Load(); moved != t.seen || t.half.Load() != t.seenHalf {
		t.seen, t.seenHalf, t.since = moved, t.half.Load(), now
	}
	switch quiet := now.Sub(t.since); {
	case quiet >= t.idle:
		t.over = true
		t.giveUp(splice.Idle)
	case t.half.Load() && t.sending.Load() == 0 && quiet >= t.linger:
		t.over = true
		t.giveUp(splice.Linger)
	default:
		t.timer.Reset(min(t.idle, t.linger) / tunnelLooks)
	}
}

// stop ends the watch.
func (t *tunnel) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.timer.Stop()
}

// streamReason returns why reading a stream from the upstream failed with err; "" if
// the stream has ended.
func streamReason(err error) certs.Reason {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, io.ErrUnexpectedEOF):
		return certs.ReasonUpstreamTruncated
	case errors.Is(err, syscall.ECONNRESET):
		return certs.ReasonUpstreamReset
	}
	return certs.ReasonUpstreamFailed
}

// carry carries one direction until its stream ends, and passes the end on. It
// counts the bytes, and returns an error if the stream broke off. A side that takes
// no more ends the direction too, but not the other, in which it may still say
// something.
func (t *tunnel) carry(from source, to sink, bytes *uint64) error {
	defer t.half.Store(true)
	for {
		if !from.Buffered() && !t.send(to.Flush) {
			return nil
		}
		p, err := from.Read()
		t.moved.Add(1)
		if err == io.EOF {
			_ = to.End(nil) // fails only if that side is gone: then reading from it ends
			return nil
		}
		if err != nil {
			return err
		}
		if !t.send(func() error { return to.Write(p) }) {
			return nil
		}
		*bytes += uint64(len(p))
	}
}

// send lets f send something, and reports whether it could.
func (t *tunnel) send(f func() error) bool {
	t.sending.Add(1)
	err := f()
	t.sending.Add(-1)
	t.moved.Add(1)
	return err == nil
}
