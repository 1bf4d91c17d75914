package l7

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

// The deadline of a gRPC call is kept here as well as passed on: an upstream that
// does not keep it holds nothing of the gateway's for longer than the client
// waits. (gRPC over HTTP/2, "Requests": Timeout.)

var (
	// errCallDeadline ends a call whose grpc-timeout ran out.
	errCallDeadline = fmt.Errorf("the deadline of the call passed: %w", context.DeadlineExceeded)

	// errCallTimeout refuses a call whose grpc-timeout is none.
	errCallTimeout = errors.New("a grpc-timeout that is not up to 8 digits and a unit, or more than one")
)

// bound returns how long all of the exchange may take: what the route says, or
// until the deadline of the call if that is less. 0: it is not bounded.
func (x *exchange) bound() (time.Duration, error) {
	total, fields := x.action.Forward.TotalTimeout, &x.facts.Request.Fields
	if !x.grpc {
		return total, nil
	}
	d, given, ok := policy.CallTimeout(*fields)
	switch {
	case !given:
		return total, nil
	case !ok:
		return 0, errCallTimeout
	case d == 0: // so say clients whose deadline has passed
		x.fail(errCallDeadline)
		return 0, errCallDeadline
	case total <= 0 || d < total:
		total, x.byCall = d, true
	}
	return total, nil
}

// A finisher can end a response in the middle of its body so that the client
// knows why. Only HTTP/2's can: elsewhere a gRPC client sees a broken response.
type finisher interface {
	Finish(trailer message.Fields) bool
}

// tellDeadline ends the response to a call, whose deadline or time has passed
// after it began, with the status that says so. It reports false if it is no
// such response. Any goroutine may call it.
func (x *exchange) tellDeadline() bool {
	f, ok := x.front.(finisher)
	return ok && x.answering.Load() && f.Finish(message.Fields{
		{Name: "grpc-status", Value: strconv.Itoa(policy.GatewayTimeout.GRPC)},
		{Name: "grpc-message", Value: policy.GatewayTimeout.Text()},
	})
}
