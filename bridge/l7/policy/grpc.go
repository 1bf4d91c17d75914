package policy

import (
	"math"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// IsGRPC reports whether a message belongs to a gRPC call.
func IsGRPC(f message.Fields) bool {
	given, _ := f.Get("Content-Type")
	const kind = "application/grpc"
	if len(given) < len(kind) || !message.EqualFold(given[:len(kind)], kind) || f.Count("Content-Type") > 1 {
		return false
	}
	rest := given[len(kind):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// CallTimeout returns how long a gRPC call may take, and whether it has a timeout at
// all. It reports ok as false if the timeout is not up to 8 digits and a unit, or
// occurs more than once (gRPC over HTTP/2, "Requests": Timeout).
func CallTimeout(f message.Fields) (d time.Duration, given, ok bool) {
	text, given := f.Get("Grpc-Timeout")
	if !given {
		return 0, false, true
	}
	d, ok = parseCallTimeout(text)
	return d, true, ok && f.Count("Grpc-Timeout") == 1
}

// parseCallTimeout parses the value of a grpc-timeout. A timeout that overflows
// a time.Duration becomes the longest Duration.
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

// ServerFailed reports whether a gRPC status says that the server failed:
// UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS. DEADLINE_EXCEEDED does not, since
// the client sets a call's deadline; nor does UNIMPLEMENTED.
func ServerFailed(f message.Fields) bool {
	switch status, _ := f.Get("Grpc-Status"); status {
	case "2", "13", "14", "15":
		return true
	}
	return false
}
