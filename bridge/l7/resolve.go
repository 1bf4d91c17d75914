package l7

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// A Question is a request's head that nobody sent.
type Question struct {
	Method, Host, Target string      // Target as on the wire: "/path?query"
	Header               http.Header // in canonical names; it is modified
}

// A Resolution is what would become of a request.
type Resolution struct {
	Host, Path string  // as they are matched and forwarded
	Action     *Action // nil: refused
	Code       int     // of a refusal: 400, 404, 405 or 421
	Err        error   // why it is refused with 400 or 405
}

// Resolve says what a request would meet with, by the same rules and in the
// same order as one that is served. Nothing is sent or counted.
func (t *Table) Resolve(q Question) Resolution {
	header := fields(q.Header)
	if header == nil {
		header = fields{}
	}
	var length int64
	if given := header["Content-Length"]; len(given) == 1 {
		length, _ = strconv.ParseInt(given[0], 10, 64) // the body that it would have
	}
	at, err := parseTarget(head{method: q.Method, target: q.Target, authority: q.Host, header: header, length: length})
	if err != nil {
		code := badRequest.code
		if errors.Is(err, errMethod) {
			code = methodNotAllowed.code
		}
		return Resolution{Code: code, Err: err}
	}
	out := Resolution{Host: at.host, Path: at.path}
	if t.TLS != nil && !t.TLS.Knows(at.host) {
		out.Code = misdirected.code
		return out
	}
	header.cleanRequest(true)
	out.Action = t.action(route.Request{Host: at.host, Path: at.path, Method: q.Method, Header: http.Header(header).Values})
	if a := out.Action; a == nil || a.Redirect == nil && a.Respond == nil && a.Forward == nil {
		out.Action, out.Code = nil, notFound.code
	}
	return out
}
