package l7

import (
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// statusClientGone is what is counted for a request whose client left before
// it was answered. It is never sent. (NGINX's number.)
const statusClientGone = 499

// An answer is what a client is told when the gateway itself answers with an
// error: a fixed text, the same whatever went wrong behind it.
type answer struct {
	code int
	body string
	grpc int // the gRPC status of the same meaning

	again string // Retry-After: in how many seconds it may be worth another try; "": it is not said
}

// The answers there are. gRPC statuses are those that gRPC clients would make
// of the HTTP status (grpc/doc/http-grpc-status-mapping.md), but for the
// deadline, which has a status of its own.
var (
	badRequest         = answer{code: 400, body: "bad request\n", grpc: 13}
	forbidden          = answer{code: 403, body: "forbidden\n", grpc: 7}
	notFound           = answer{code: 404, body: "no route\n", grpc: 12}
	methodNotAllowed   = answer{code: 405, body: "method not allowed\n", grpc: 12}
	requestTimeout     = answer{code: 408, body: "request timeout\n", grpc: 4}
	misdirected        = answer{code: 421, body: "misdirected request\n", grpc: 2}
	tooManyRequests    = answer{code: 429, body: "too many requests\n", grpc: 14}
	badGateway         = answer{code: 502, body: "bad gateway\n", grpc: 14}
	serviceUnavailable = answer{code: 503, body: "service unavailable\n", grpc: 14}
	overloaded         = answer{code: 503, body: "service unavailable\n", grpc: 14, again: "1"}
	gatewayTimeout     = answer{code: 504, body: "gateway timeout\n", grpc: 4}
)

// refusals are the answers to requests that are refused before they are
// routed, by status code, where it is not 400.
var refusals = map[int]answer{
	408: requestTimeout,
	413: {code: 413, body: "content too large\n", grpc: 8},
	414: {code: 414, body: "URI too long\n", grpc: 13},
	417: {code: 417, body: "expectation failed\n", grpc: 13},
	431: {code: 431, body: "request header fields too large\n", grpc: 8},
	501: {code: 501, body: "not implemented\n", grpc: 12},
	505: {code: 505, body: "HTTP version not supported\n", grpc: 13},
}

// refusal returns the answer for a status code.
func refusal(code int) answer {
	if a, ok := refusals[code]; ok {
		return a
	}
	return badRequest
}

// write makes r the head of the answer and returns its body, for a client of
// gRPC, which takes a status in the header of a 200 ("Trailers-Only"), or of
// plain HTTP. For an answer without a body there is none.
func (a answer) write(r *message.Response, grpc bool) (body string) {
	*r = message.Response{Status: a.code, Fields: r.Fields[:0], Declared: -1}
	if a.again != "" {
		r.Fields.Add("Retry-After", a.again)
	}
	if grpc {
		r.Status = 200
		r.Fields.Add("Content-Type", "application/grpc")
		r.Fields.Add("Grpc-Status", strconv.Itoa(a.grpc))
		r.Fields.Add("Grpc-Message", a.text())
		return ""
	}
	r.Fields.Add("Content-Type", "text/plain; charset=utf-8")
	r.Fields.Add("X-Content-Type-Options", "nosniff")
	r.Length = int64(len(a.body))
	return a.body
}

// text is the answer in one line.
func (a answer) text() string { return strings.TrimSuffix(a.body, "\n") }
