package l7

import (
	"errors"
	"io"
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
	t := newTunnel(func() { x.fail(errOver) })
	x.uploading = true
	x.sending.Add(1)
	go func() {
		defer x.sending.Done()
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
	x.drop(b, errOver)
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

// A tunnel does not let a connection of which one side has ended wait for the
// other for ever.
type tunnel struct {
	moved atomic.Uint64 // counts what moves
	half  atomic.Bool   // one side has ended
	timer *time.Timer
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

// newTunnel returns a tunnel. giveUp must end both sides.
func newTunnel(giveUp func()) *tunnel {
	t := &tunnel{}
	seen, quiet := uint64(0), false
	t.timer = time.AfterFunc(lingerTime/2, func() {
		moved := t.moved.Load()
		switch {
		case moved != seen || !t.half.Load():
			seen, quiet = moved, false
		case quiet:
			giveUp()
			return
		default:
			quiet = true
		}
		t.timer.Reset(lingerTime / 2)
	})
	return t
}

func (t *tunnel) stop() { t.timer.Stop() }

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
		if !from.Buffered() && to.Flush() != nil {
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
		if to.Write(p) != nil {
			return nil
		}
		*bytes += uint64(len(p))
	}
}
