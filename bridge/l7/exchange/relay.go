package exchange

import (
	"errors"
	"io"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

// maxInterims bounds how many interim responses precede a final one.
const maxInterims = 32

// errOver ends the unfinished parts of an exchange whose response is complete.
var errOver = errors.New("the exchange has ended")

// receive waits for the head of the final response.
func (x *Exchange) receive(b message.Back) error {
	for range maxInterims {
		if err := b.Receive(&x.response); err != nil {
			return err
		}
		x.try.endpoint.NoteReply()
		if !x.response.Interim() {
			x.try.recordHead()
			x.try.reportHead()
			x.try.protectLogin(b)
			return nil
		}
		x.interim()
	}
	return errInterims
}

// protectLogin reserves a connection for its client if the upstream requested a
// login that authenticates the connection.
func (t *attempts) protectLogin(b message.Back) {
	if !policy.AsksLogin(t.x.response.Fields) {
		return
	}
	if c, ok := b.(loginCarrier); ok {
		c.TakesLogin()
	}
	t.upstream.ExpectLogin(t.endpoint)
}

// interim forwards an interim response.
func (x *Exchange) interim() {
	if x.response.Status == 100 {
		// Only a client that sent Expect: 100-continue may get a 100 response.
		if x.upload.expect.expects {
			x.upload.sendContinue()
			x.upload.expect.release()
		}
		return
	}
	x.try.interimForwarded = true
	policy.RemoveHopByHop(&x.response.Fields)
	_ = x.front.Inform(&x.response) // fails only if the client left; then the next write fails too
}

// head records that the final head arrived, which ends the wait for it.
func (x *Exchange) head() {
	x.cancel.start()
	x.upload.replay.stop()
	x.upload.expect.release()
}

// relay forwards the final response, whose head b has received. For its result see tunnel.
func (x *Exchange) relay(b message.Back) (tunnels bool) {
	x.head()
	x.deadlines.responseStarted()
	r := &x.response
	if r.Status == 101 {
		x.deadlines.stop() // the response has become a tunnel
		x.timerPending = true
		return x.tunnel(b)
	}
	if x.WebSocketKey != "" && r.Status < 300 {
		// A client that used CONNECT would read the response as a WebSocket.
		x.drop(b, errUpgrade)
		x.failed(errUpgrade)
		return false
	}
	if r.Length > 0 && r.Fields.Has("Trailer") {
		// HTTP/2 allows a length with trailers; in HTTP/1.1 only a chunked body has
		// trailers.
		r.Length = -1
	}
	r.Upgrade = policy.RequiredUpgrade(r)
	policy.RemoveHopByHop(&r.Fields)
	x.applyRules()
	x.addDate()
	x.code = r.Status
	x.recordStatus(r.Fields)
	isCall := x.GRPC && policy.IsGRPC(r.Fields)
	end := r.Length == 0
	if end {
		x.releaseBack(b)
		x.uncount()
	}
	if err := x.front.Respond(r, end); err != nil {
		if !end {
			x.drop(b, err)
		}
		x.abort(err)
		return false
	}
	if isCall {
		x.relaysCall.Store(true)
	}
	x.responded.Store(true)
	if !end {
		x.download(b)
	}
	return false
}

// download carries the response's body.
func (x *Exchange) download(b message.Back) {
	defer x.stall.end()
	readErr, err := x.carryBody(b)
	switch {
	case err != nil: // the client failed
	case readErr == io.EOF:
		x.complete(b)
		return
	default:
		x.deadlines.checkCall()
		if err = readErr; x.stall.found.Load() {
			err = errStalled
		}
		if x.try.reportBroken(err); err == errStalled || !x.cancel.failed() {
			x.logFailure(x.try.upstream.Upstream().Name(), x.code, err)
			_ = x.front.Flush() // forward the part that arrived
		}
	}
	x.drop(b, err)
	x.abort(err)
}

// carryBody passes on the response's body, until b ends it or the client stops
// reading.
func (x *Exchange) carryBody(b message.Back) (readErr, writeErr error) {
	f := flowBetween(b, x.front)
	f.Begin()
	defer f.End()
	charged := chargedFlowBetween(b, x.front)
	for {
		charged.beforeRead()
		waits := !b.Buffered()
		if waits {
			if err := x.front.Flush(); err != nil {
				return nil, err
			}
			x.stall.watch()
		}
		p, err := b.Read()
		if waits {
			x.stall.unwatch()
		}
		if err != nil {
			return err, nil
		}
		if err := charged.write(x.front, p); err != nil {
			return nil, err
		}
		x.Log.ToClient += uint64(len(p))
	}
}

// complete ends the response, whose end b has received.
func (x *Exchange) complete(b message.Back) {
	trailer := b.Trailer()
	trailer.RemoveFunc(func(f message.Field) bool { return policy.IsFraming(f.Name) })
	x.recordStatus(trailer)
	x.try.reportEnd(trailer)
	if !x.upload.read.Load() {
		// Release only the client's limits: the client may still send, so the request
		// has not ended upstream.
		x.uncountClient()
		if err := x.front.End(trailer); err != nil {
			x.abort(err)
		}
		x.releaseBack(b)
		return
	}
	if len(trailer) > 0 { // b owns the fields until Done
		x.uncount()
		if err := x.front.End(trailer); err != nil {
			x.abort(err)
		}
		x.releaseBack(b)
		return
	}
	x.releaseBack(b) // before the response is written, so that the client's next request may use the connection
	x.uncount()
	if err := x.front.End(nil); err != nil {
		x.abort(err)
	}
}

// uncount removes the exchange from the limits of the listener and of the upstream.
// It is called before the client gets the end of the response, because the client
// may send its next request right after.
func (x *Exchange) uncount() {
	x.uncountClient()
	x.try.leave()
}

func (x *Exchange) uncountClient() {
	if x.Uncount != nil {
		x.Uncount()
	}
}

// releaseBack releases b, whose response was read to its end.
func (x *Exchange) releaseBack(b message.Back) {
	if !x.upload.sent.Load() {
		if x.upload.read.Load() {
			// All of the request was sent and has most likely arrived.
			stuck := time.AfterFunc(time.Second, func() { x.cancel.fail(errOver) })
			x.upload.sending.Wait()
			if !stuck.Stop() {
				x.timerPending = true
			}
		}
		if !x.upload.sent.Load() {
			x.drop(b, errOver)
			return
		}
	}
	x.upload.sending.Wait()
	x.cancel.detach()
	b.Done()
}

// drop aborts the rest of the exchange with b.
func (x *Exchange) drop(b message.Back, cause error) {
	b.Abort(cause)
	if x.upload.started {
		x.upload.refuse()
		x.head()
		x.upload.sending.Wait()
	}
	x.cancel.detach()
	b.Done()
}
