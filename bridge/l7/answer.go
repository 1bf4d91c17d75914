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
}

// The answers there are. gRPC statuses are those that gRPC clients would make
// of the HTTP status (grpc/doc/http-grpc-status-mapping.md), but for the
// deadline, which has a status of its own.
var (
	badRequest         = answer{400, "bad request\n", 13}
	forbidden          = answer{403, "forbidden\n", 7}
	notFound           = answer{404, "no route\n", 12}
	methodNotAllowed   = answer{405, "method not allowed\n", 12}
	requestTimeout     = answer{408, "request timeout\n", 4}
	misdirected        = answer{421, "misdirected request\n", 2}
	tooManyRequests    = answer{429, "too many requests\n", 14}
	badGateway         = answer{502, "bad gateway\n", 14}
	serviceUnavailable = answer{503, "service unavailable\n", 14}
	gatewayTimeout     = answer{504, "gateway timeout\n", 4}
)

// refusals are the answers to requests that are refused before they are
// routed, by status code, where it is not 400.
var refusals = map[int]answer{
	408: requestTimeout,
	413: {413, "content too large\n", 8},
	414: {414, "URI too long\n", 13},
	417: {417, "expectation failed\n", 13},
	431: {431, "request header fields too large\n", 8},
	501: {501, "not implemented\n", 12},
	505: {505, "HTTP version not supported\n", 13},
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
	if grpc {
		r.Status = 200
		r.Fields.Add("Content-Type", "application/grpc")
		r.Fields.Add("Grpc-Status", strconv.Itoa(a.grpc))
		r.Fields.Add("Grpc-Message", strings.TrimSuffix(a.body, "\n"))
		return ""
	}
	r.Fields.Add("Content-Type", "text/plain; charset=utf-8")
	r.Fields.Add("X-Content-Type-Options", "nosniff")
	r.Length = int64(len(a.body))
	return a.body
}

// isGRPC reports whether a request is a gRPC call.
func isGRPC(f message.Fields) bool {
	given, _ := f.Get("Content-Type")
	const kind = "application/grpc"
	if len(given) < len(kind) || !message.EqualFold(given[:len(kind)], kind) || f.Count("Content-Type") > 1 {
		return false
	}
	rest := given[len(kind):]
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}
