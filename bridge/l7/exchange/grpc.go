package exchange

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

// totalTime returns how long the whole exchange may take: what the route says, or
// until the deadline of the call if that is sooner. 0: there is no limit.
func (x *Exchange) totalTime(total time.Duration) (time.Duration, error) {
	if !x.GRPC {
		return total, nil
	}
	d, given, ok := policy.CallTimeout(x.Facts.Request.Fields)
	switch {
	case !given:
		return total, nil
	case !ok:
		return 0, errCallTimeout
	case d == 0: // clients whose deadline has passed say so
		x.cancel.fail(errCallDeadline)
		return 0, errCallDeadline
	case total <= 0 || d < total:
		total, x.deadlines.byCall = d, true
	}
	return total, nil
}

// tellDeadline ends the response to a call, whose deadline or time has passed
// after it began, with the status that says so. It reports false if it is no
// such response. Any goroutine may call it.
func (x *Exchange) tellDeadline() bool {
	f, ok := x.front.(finisher)
	return ok && x.relaysCall.Load() && f.Finish(message.Fields{
		{Name: "grpc-status", Value: strconv.Itoa(policy.GatewayTimeout.GRPC)},
		{Name: "grpc-message", Value: policy.GatewayTimeout.Text()},
	})
}
