package l7

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
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

// isGRPC reports whether a message is a gRPC call's.
func isGRPC(f message.Fields) bool {
	given, _ := f.Get("Content-Type")
	const kind = "application/grpc"
	if len(given) < len(kind) || !message.EqualFold(given[:len(kind)], kind) || f.Count("Content-Type") > 1 {
		return false
	}
	rest := given[len(kind):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// bound returns how long all of the exchange may take: what the route says, or
// until the deadline of the call if that is less. 0: it is not bounded.
func (x *exchange) bound() (time.Duration, error) {
	total, fields := x.action.Forward.TotalTimeout, &x.request.Fields
	if !x.grpc || !fields.Has("Grpc-Timeout") {
		return total, nil
	}
	given, _ := fields.Get("Grpc-Timeout")
	d, ok := parseCallTimeout(given)
	switch {
	case !ok || fields.Count("Grpc-Timeout") > 1:
		return 0, errCallTimeout
	case d == 0: // so say clients whose deadline has passed
		x.fail(errCallDeadline)
		return 0, errCallDeadline
	case total <= 0 || d < total:
		total, x.byCall = d, true
	}
	return total, nil
}

// parseCallTimeout parses the value of a grpc-timeout. What is longer than can
// be counted is as long as can be.
func parseCallTimeout(s string) (d time.Duration, ok bool) {
	const maxDigits = 8
	if len(s) < 2 || len(s) > maxDigits+1 {
		return 0, false
	}
	var n int64
	for _, c := range []byte(s[:len(s)-1]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	var unit time.Duration
	switch s[len(s)-1] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = time.Nanosecond
	default:
		return 0, false
	}
	if n > math.MaxInt64/int64(unit) {
		return math.MaxInt64, true
	}
	return time.Duration(n) * unit, true
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
		{Name: "grpc-status", Value: strconv.Itoa(gatewayTimeout.grpc)},
		{Name: "grpc-message", Value: gatewayTimeout.text()},
	})
}
