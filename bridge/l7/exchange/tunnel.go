package exchange

import (
	"errors"
	"io"
	"strings"
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

// lingerTime is how long one side of an upgraded connection may stay silent after the
// other side has ended its stream.
const lingerTime = time.Minute

// EndCutOff is the Log.Ended of an upgraded connection that ended early.
const EndCutOff = "cut off"

// tunnel carries bytes both ways after the upstream has changed to the protocol
// that the client asked for. It returns true if an engine still carries them: see Forward.
func (x *Exchange) tunnel(b message.Back) (continues bool) {
	if !policy.AcceptUpgrade(&x.response, x.Facts.Request) || x.WebSocketKey != "" && !policy.UpgradeToConnect(&x.response, x.WebSocketKey) {
		x.drop(b, errUpgrade)
		x.failed(errUpgrade)
		return false
	}
	policy.RemoveHopByHop(&x.response.Fields)
	x.applyRules()
	x.addDate()
	x.code = x.response.Status
	x.Log.Upgraded = true
	if err := x.front.Respond(&x.response, false); err != nil {
		x.drop(b, err)
		x.abort(err)
		return false
	}
	client, ok1 := x.front.(spliceable)
	server, ok2 := b.(spliceable)
	if ok1 && ok2 {
		if err := errors.Join(wire.Forward(client.Reader(), server.Writer(), &x.Log.FromClient),
			wire.Forward(server.Reader(), client.Writer(), &x.Log.ToClient)); err != nil {
			x.drop(b, err)
			x.abort(err)
			return false
		}
		// The engine would not see the end of a stream if it was already read.
		if client.Reader().Err() == nil && server.Reader().Err() == nil {
			return (&spliced{x, b, client, server}).start()
		}
	}
	uncharge(x.front, b) // the tunnel does not ask for the client's window before each read
	x.waitLong(b)
	var gaveUp atomic.Value
	t := newTunnel(upgradedIdle, lingerTime, func(how splice.Ending) {
		gaveUp.Store(string(how))
		x.cancel.fail(errOver)
	})
	x.upload.started = true
	x.upload.sending.Add(1)
	go t.carryUp(x, b)
	x.Log.Ended = string(splice.Closed)
	_, err := t.carry(b, x.front, &x.Log.ToClient, nil)
	if !x.cancel.failed() { // otherwise the client aborted, or a time limit passed
		x.Log.Reason = streamReason(err)
		x.try.endpoint.NoteStreamEnd(x.Log.Reason, err)
	}
	if err != nil {
		x.Log.Ended = EndCutOff
		x.abort(errOver) // ends the client's side too
	}
	x.upload.sending.Wait()
	t.stop()
	if how, ok := gaveUp.Load().(string); ok {
		x.Log.Ended = how
	}
	x.drop(b, errOver)
	return false
}

// carryUp carries the client's stream to b, without a goroutine while it waits if the
// front allows that.
func (t *tunnel) carryUp(x *Exchange, b message.Back) {
	parked := false
	defer func() {
		if !parked {
			x.upload.sending.Done()
		}
	}()
	defer x.guard()
	var err error
	if parked, err = t.carry(x.front, b, &x.Log.FromClient, t.parkUp(x, b)); err != nil {
		x.cancel.fail(errOver) // the upstream's copy of the stream is incomplete
	}
}

// parkUp returns the park argument of carry for the client's stream, or nil.
func (t *tunnel) parkUp(x *Exchange, b message.Back) func() bool {
	f, ok := x.front.(bodyAwaiter)
	if !ok {
		return nil
	}
	return func() bool { return f.AwaitBody(func() { t.carryUp(x, b) }) }
}

// waitLong allows writes to wait as long as the tunnel may be idle.
func (x *Exchange) waitLong(b message.Back) {
	for _, half := range [...]any{x.front, b} {
		if w, ok := half.(waitLimiter); ok {
			w.LimitWait(upgradedIdle)
		}
	}
}

// upgradedIdle is how long an upgraded connection may be idle.
const upgradedIdle = time.Hour

// A spliced is an upgraded connection with HTTP/1.1 on both sides. The engine of the TCP
// listeners carries it.
type spliced struct {
	x              *Exchange
	back           message.Back // server
	client, server spliceable
}

// start passes the connection to the engine. It reports whether the engine carries it; no
// goroutine waits for its end.
func (s *spliced) start() bool {
	x := s.x
	engine, err := x.shared.Splices.Engine()
	if err != nil {
		x.drop(s.back, err)
		x.abort(err)
		return false
	}
	shared, peer := x.shared, x.Facts.Client
	if t, ok := x.front.(tunneler); ok {
		t.Tunnels(strings.Clone(x.Facts.Request.Upgrade), s.server.NetConn(), x.try.endpoint)
	}
	engine.Start(s.client.NetConn(), s.server.NetConn(), splice.Options{
		Idle: upgradedIdle, Linger: lingerTime,
		ToUpstream: x.shared.FromClient, ToClient: x.shared.ToClient,
		Done: func(r splice.Result) { go s.ended(r) },
		Panicked: func(value any, stack []byte) {
			go shared.logPanic(peer, value, stack) // in a goroutine, because logging may block
		},
	})
	return true
}

// ended ends the exchange after the engine has carried its connection to the end.
func (s *spliced) ended(r splice.Result) {
	x := s.x
	defer x.TunnelEnded()
	defer x.guard()
	x.Log.Ended = string(r.Ending)
	x.Log.Reason = r.Reason()
	x.try.endpoint.NoteStreamEnd(x.Log.Reason, r.Cause)
	x.Log.FromClient += r.ToUpstream
	x.Log.ToClient += r.ToClient
	s.client.Spliced()
	s.server.Spliced()
	x.cancel.detach()
	s.back.Done()
	x.end(nil)
	if x.shared.Log.IsDebug() {
		x.shared.Log.Debug("upgraded connection ended", "client", x.Facts.Client, "how", string(r.Ending),
			"to_upstream", r.ToUpstream, "to_client", r.ToClient)
	}
}

// A tunnel ends an upgraded connection that has been idle for too long. The limit is
// idle, or linger once one side has ended its stream and no bytes wait to be sent.
type tunnel struct {
	idle, linger time.Duration

	moved   atomic.Uint64 // counts the bytes carried
	sending atomic.Int32  // directions in which bytes wait to be sent
	half    atomic.Bool   // one side has ended

	mu       sync.Mutex
	giveUp   func(how splice.Ending)
	timer    *time.Timer
	done     bool
	seen     uint64 // the value of moved at the last check
	seenHalf bool
	since    time.Time // when bytes last moved
}

// A source and a sink are the parts of fronts and backs that a direction of a
// tunnel uses.
type source interface {
	Read() ([]byte, error)
	Buffered() bool
}

type sink interface {
	Write(p []byte) error
	Flush() error
	End(trailer message.Fields) error
}

// newTunnel returns a tunnel. giveUp must end both sides; its parameter says how
// the tunnel ended.
func newTunnel(idle, linger time.Duration, giveUp func(how splice.Ending)) *tunnel {
	t := &tunnel{idle: idle, linger: linger, giveUp: giveUp, since: time.Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(min(idle, linger)/tunnelLooks, t.look)
	return t
}

// tunnelLooks is the number of checks within the shortest limit of a tunnel.
const tunnelLooks = 32

// look checks whether any bytes have moved.
func (t *tunnel) look() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	now := time.Now()
	if moved := t.moved.Load(); moved != t.seen || t.half.Load() != t.seenHalf {
		t.seen, t.seenHalf, t.since = moved, t.half.Load(), now
	}
	switch quiet := now.Sub(t.since); {
	case quiet >= t.idle:
		t.done = true
		t.giveUp(splice.Idle)
	case t.half.Load() && t.sending.Load() == 0 && quiet >= t.linger:
		t.done = true
		t.giveUp(splice.Linger)
	default:
		t.timer.Reset(min(t.idle, t.linger) / tunnelLooks)
	}
}

// stop ends the watch.
func (t *tunnel) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done = true
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

// carry copies one direction until its stream ends, and forwards the end. It counts
// the bytes, and returns an error if the stream ended early. A side that stops reading
// ends this direction, but not the other direction, in which that side may still send.
//
// Before carry waits, it calls park, unless park is nil. If park returns true,
// carry returns true too. The caller must then no longer use the tunnel; carry must
// be called again when from can be read.
func (t *tunnel) carry(from source, to sink, bytes *uint64, park func() bool) (parked bool, err error) {
	for {
		if !from.Buffered() {
			if !t.send(to.Flush) {
				break
			}
			if park != nil && park() {
				return true, nil
			}
		}
		var p []byte
		p, err = from.Read()
		t.moved.Add(1)
		if err == io.EOF {
			_ = to.End(nil) // fails only if that side has closed, and then reading from it ends too
			err = nil
			break
		}
		if err != nil || !t.send(func() error { return to.Write(p) }) {
			break
		}
		*bytes += uint64(len(p))
	}
	t.half.Store(true)
	return false, err
}

// send calls f, which sends bytes, and reports whether it succeeded.
func (t *tunnel) send(f func() error) bool {
	t.sending.Add(1)
	err := f()
	t.sending.Add(-1)
	t.moved.Add(1)
	return err == nil
}
