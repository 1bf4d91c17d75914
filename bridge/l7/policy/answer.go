package policy

import (
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// StatusClientGone is counted for a request whose client left before it was
// answered. It is never sent. (The number is NGINX's.)
const StatusClientGone = 499

// An Answer is the gateway's own answer to a request that fails: a fixed text,
// the same for every failure behind it.
type Answer struct {
	Code       int
	GRPC       int    // the equivalent gRPC status
	RetryAfter string // seconds until a retry may succeed; "": no Retry-After

	body string
}

// The answers. Their gRPC statuses are the ones that gRPC clients derive from the
// HTTP status (grpc/doc/http-grpc-status-mapping.md). Only an exceeded deadline
// has a status of its own.
var (
	BadRequest         = Answer{Code: 400, body: "bad request\n", GRPC: 13}
	Forbidden          = Answer{Code: 403, body: "forbidden\n", GRPC: 7}
	NotFound           = Answer{Code: 404, body: "no route\n", GRPC: 12}
	MethodNotAllowed   = Answer{Code: 405, body: "method not allowed\n", GRPC: 12}
	RequestTimeout     = Answer{Code: 408, body: "request timeout\n", GRPC: 4}
	Misdirected        = Answer{Code: 421, body: "misdirected request\n", GRPC: 2}
	TooManyRequests    = Answer{Code: 429, body: "too many requests\n", GRPC: 14}
	BadGateway         = Answer{Code: 502, body: "bad gateway\n", GRPC: 14}
	ServiceUnavailable = Answer{Code: 503, body: "service unavailable\n", GRPC: 14}
	Overloaded         = Answer{Code: 503, body: "service unavailable\n", GRPC: 14, RetryAfter: "1"}
	GatewayTimeout     = Answer{Code: 504, body: "gateway timeout\n", GRPC: 4}
	// UpstreamTimeout is for timeouts other than the request's own: to gRPC
	// clients, DEADLINE_EXCEEDED means the call's own deadline.
	UpstreamTimeout = Answer{Code: 504, body: "gateway timeout\n", GRPC: 14}
)

// rejections maps status codes other than 400 to the answers for requests that
// are rejected before routing.
var rejections = map[int]Answer{
	408: RequestTimeout,
	413: {Code: 413, body: "content too large\n", GRPC: 8},
	414: {Code: 414, body: "URI too long\n", GRPC: 13},
	417: {Code: 417, body: "expectation failed\n", GRPC: 13},
	431: {Code: 431, body: "request header fields too large\n", GRPC: 8},
	501: {Code: 501, body: "not implemented\n", GRPC: 12},
	505: {Code: 505, body: "HTTP version not supported\n", GRPC: 13},
}

// Rejection returns the answer for a status code, or BadRequest for a code
// without one.
func Rejection(code int) Answer {
	if a, ok := rejections[code]; ok {
		return a
	}
	return BadRequest
}

// Write makes r the head of the answer and returns its body. A gRPC client gets
// a 200 without a body, with the gRPC status in the header ("Trailers-Only").
func (a Answer) Write(r *message.Response, grpc bool) (body string) {
	*r = message.Response{Status: a.Code, Fields: r.Fields[:0], Declared: -1}
	if a.RetryAfter != "" {
		r.Fields.Add("Retry-After", a.RetryAfter)
	}
	if grpc {
		r.Status = 200
		r.Fields.Add("Content-Type", "application/grpc")
		r.Fields.Add("Grpc-Status", strconv.Itoa(a.GRPC))
		r.Fields.Add("Grpc-Message", a.Text())
		return ""
	}
	r.Fields.Add("Content-Type", "text/plain; charset=utf-8")
	r.Fields.Add("X-Content-Type-Options", "nosniff")
	r.Length = int64(len(a.body))
	return a.body
}

// Text returns the answer as one line.
func (a Answer) Text() string { return strings.TrimSuffix(a.body, "\n") }
