package l7

import (
	"errors"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

// What outlier detection goes by: how each request that was sent to an endpoint has
// ended, told once. What ends it before there is a response is told as a failure of
// the endpoint (blame). What a client causes, by leaving or by what it sends or
// takes too slowly, is no result at all.

// judgeHead tells the endpoint what the head of its response came to, if that is all
// there will be, or bad enough.
func (x *exchange) judgeHead() {
	switch r := &x.response; {
	case r.Status >= 500:
		x.endpoint.NoteResult(false)
	case r.Status == 101:
		x.endpoint.NoteStream()
	case r.Length == 0:
		x.endpoint.NoteResult(!x.callFailed(r.Fields))
	}
}

// judgeEnd tells the endpoint what its whole response came to.
func (x *exchange) judgeEnd(trailer message.Fields) {
	if x.response.Status < 500 {
		x.endpoint.NoteResult(!x.callFailed(trailer))
	}
}

// judgeBroken tells the endpoint that its response was not whole, unless that is the
// client's doing.
func (x *exchange) judgeBroken(err error) {
	if err != errStalled && x.ended() {
		if err = x.timedOut(); err == nil || !x.sent.Load() {
			return
		}
	}
	x.endpoint.NoteBroken(reasonOf(err), err, x.response.Status >= 500)
}

// judgeLate tells the endpoint that it did not answer a request in time, of which it
// had everything.
func (x *exchange) judgeLate(cause error) {
	if x.endpoint != nil && x.sent.Load() {
		x.endpoint.NoteBroken(reasonOf(cause), cause, false)
	}
}

// timedOut returns the time limit of the upstream's that has ended the exchange; nil
// if another cause did, or none.
func (x *exchange) timedOut() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if errors.Is(x.cause, errDeadline) || errors.Is(x.cause, errTooLong) {
		return x.cause
	}
	return nil
}

// callFailed reports whether the fields have a gRPC status that says that the server
// failed.
func (x *exchange) callFailed(f message.Fields) bool { return x.grpc && policy.ServerFailed(f) }
