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
	case r.Length == 0 || r.Status == 101:
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
	if x.response.Status < 500 && (err == errStalled || !x.ended() || x.timedOut() && x.sent.Load()) {
		x.endpoint.NoteResult(false)
	}
}

// judgeLate tells the endpoint that it did not answer a request in time, of which it
// had everything.
func (x *exchange) judgeLate() {
	if x.endpoint != nil && x.sent.Load() {
		x.endpoint.NoteResult(false)
	}
}

// timedOut reports whether the exchange has ended because the upstream took too
// long.
func (x *exchange) timedOut() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return errors.Is(x.cause, errDeadline) || errors.Is(x.cause, errTooLong)
}

// callFailed reports whether the fields have a gRPC status that says that the server
// failed.
func (x *exchange) callFailed(f message.Fields) bool { return x.grpc && policy.ServerFailed(f) }
