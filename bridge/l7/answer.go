package l7

import (
	"strconv"
	"strings"
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
	notFound           = answer{404, "no route\n", 12}
	methodNotAllowed   = answer{405, "method not allowed\n", 12}
	requestTimeout     = answer{408, "request timeout\n", 4}
	misdirected        = answer{421, "misdirected request\n", 2}
	badGateway         = answer{502, "bad gateway\n", 14}
	serviceUnavailable = answer{503, "service unavailable\n", 14}
	gatewayTimeout     = answer{504, "gateway timeout\n", 4}
)

// write fills in the header of the answer and returns its status and body, for a client of gRPC, which
// takes a status in the header of a 200 ("Trailers-Only"), or of plain HTTP.
func (a answer) write(h fields, grpc bool) (code int, body string) {
	if grpc {
		h["Content-Type"] = []string{"application/grpc"}
		h["Grpc-Status"] = []string{strconv.Itoa(a.grpc)}
		h["Grpc-Message"] = []string{strings.TrimSuffix(a.body, "\n")}
		return 200, ""
	}
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = []string{"nosniff"}
	return a.code, a.body
}

// isGRPC reports whether a request is a gRPC call.
func isGRPC(h fields) bool {
	values := h["Content-Type"]
	if len(values) != 1 {
		return false
	}
	rest, ok := strings.CutPrefix(strings.ToLower(values[0]), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}
