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

// The gateway forwards the deadline of a gRPC call and also enforces it. So an
// upstream that ignores the deadline holds resources only as long as the client
// waits. (gRPC over HTTP/2, "Requests": Timeout.)

var (
	// errCallDeadline ends a call whose grpc-timeout ran out.
	errCallDeadline = fmt.Errorf("the deadline of the call passed: %w", context.DeadlineExceeded)

	// errCallTimeout rejects a call with an invalid grpc-timeout.
	errCallTimeout = errors.New("grpc-timeout must be one value of up to 8 digits and a unit")
)

// totalTime returns how long the whole exchange may take: the route's limit, or
// the time until the call's deadline if that is shorter. 0: no limit.
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
	case d == 0: // a client whose deadline has passed sends 0
		x.cancel.fail(errCallDeadline)
		return 0, errCallDeadline
	case total <= 0 || d < total:
		total, x.deadlines.byCall = d, true
	}
	return total, nil
}

// endAtDeadline ends the response to a call with the status DEADLINE_EXCEEDED, after
// the response has begun. It reports false if that is impossible. Any goroutine may
// call it.
func (x *Exchange) endAtDeadline() bool {
	f, ok := x.front.(finisher)
	return ok && x.relaysCall.Load() && f.Finish(message.Fields{
		{Name: "grpc-status", Value: strconv.Itoa(policy.GatewayTimeout.GRPC)},
		{Name: "grpc-message", Value: policy.GatewayTimeout.Text()},
	})
}
