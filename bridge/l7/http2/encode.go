package http2

import (
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/hpack"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// An encoder encodes heads and trailers as header blocks.
type encoder struct {
	hpack *hpack.Encoder
	buf   []byte // the latest block
}

func newEncoder() *encoder { return &encoder{hpack: hpack.NewEncoder(headerTable)} }

func (e *encoder) begin() { e.buf = e.hpack.Begin(e.buf[:0]) }

// freeLarge frees the buffer if a large head has grown it.
func (e *encoder) freeLarge() {
	if cap(e.buf) > smallBuffer {
		e.buf = nil
	}
}

// field encodes one field.
func (e *encoder) field(name, value string) {
	e.buf = e.hpack.Append(e.buf, name, value, mode(name, value))
}

// fields encodes the fields of a message, without those that frame it or belong
// to an HTTP/1.1 connection. Policy has already removed such fields; one that
// it missed would make the message malformed.
func (e *encoder) fields(fields message.Fields) {
	for i := range fields {
		name := lowerName(fields[i].Name)
		switch name {
		case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings", "te", "host", "content-length":
		default:
			e.field(name, fields[i].Value)
		}
	}
}

// request encodes a request's head.
func (e *encoder) request(r *message.Request, end bool) {
	e.begin()
	e.field(":method", r.Method)
	if r.Method != "CONNECT" || r.Protocol != "" {
		e.field(":scheme", r.Scheme)
		e.field(":path", r.Target)
	}
	e.field(":authority", r.Authority)
	if r.Protocol != "" {
		e.field(":protocol", r.Protocol)
	}
	e.fields(r.Fields)
	if r.Trailers {
		e.field("te", "trailers")
	}
	switch {
	case r.Length > 0:
		e.length(r.Length)
	case r.Length == 0 && (r.Method == "POST" || r.Method == "PUT" || r.Method == "PATCH"):
		e.field("content-length", "0") // RFC 9110, section 8.6
	}
}

// response encodes the head of a response. head says that the request was a
// HEAD.
func (e *encoder) response(r *message.Response, head bool) {
	e.begin()
	e.field(":status", statusText(r.Status))
	e.fields(r.Fields)
	length := r.Length
	switch {
	case r.Status < 200, r.Status == 204:
		return // no Content-Length (RFC 9110, section 8.6)
	case head, r.Status == 304:
		length = r.Declared
	}
	if length >= 0 {
		e.length(length)
	}
}

func (e *encoder) length(n int64) { e.field("content-length", strconv.FormatInt(n, 10)) }

// trailer encodes a trailer.
func (e *encoder) trailer(fields message.Fields) {
	e.begin()
	e.fields(fields)
}

// statusText returns the three digits of a status.
func statusText(status int) string {
	if status == 200 {
		return "200"
	}
	return strconv.Itoa(status)
}

// mode says which fields enter the peer's dynamic table. Secrets do not, because
// connections are shared: an attacker who guesses one could confirm it by the size of the
// encoding (RFC 7541, section 7.1). Values that rarely repeat do not either, because they
// would evict values that do.
func mode(name, value string) hpack.Mode {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return hpack.Never
	case "content-length", "etag", "last-modified", "if-none-match", "if-modified-since", "age", "range", "content-range",
		"grpc-timeout", "traceparent", "x-request-id", "location":
		return hpack.Once
	case ":path":
		if strings.IndexByte(value, '?') >= 0 {
			return hpack.Never // a query often has a secret
		}
	}
	if len(name)+len(value) > 512 {
		return hpack.Never // long values are often secrets
	}
	return hpack.Index
}

// lowerName returns a field name in lower case.
func lowerName(name string) string {
	for i := 0; i < len(name); i++ {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			if lower, ok := lowerNames[name]; ok {
				return lower
			}
			return strings.ToLower(name)
		}
	}
	return name
}

// lowerNames has the most common names, so that lowering them does not
// allocate. It never changes.
var lowerNames = func() map[string]string {
	names := []string{
		"Accept", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Access-Control-Allow-Origin", "Age", "Allow",
		"Authorization", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
		"Content-Location", "Content-Range", "Content-Security-Policy", "Content-Type", "Cookie", "Date", "ETag", "Etag",
		"Expires", "From", "Forwarded", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since",
		"Last-Modified", "Link", "Location", "Origin", "Pragma", "Priority", "Range", "Referer", "Referrer-Policy", "Retry-After",
		"Server", "Set-Cookie", "Strict-Transport-Security", "TE", "Te", "Upgrade-Insecure-Requests", "User-Agent", "Vary", "Via",
		"Www-Authenticate", "WWW-Authenticate", "X-Content-Type-Options", "X-Forwarded-For", "X-Forwarded-Host",
		"X-Forwarded-Proto", "X-Frame-Options", "X-Powered-By", "X-Real-Ip", "X-Real-IP", "X-Request-Id", "X-Requested-With",
		"X-Client-Cert",
	}
	m := make(map[string]string, len(names))
	for _, name := range names {
		m[name] = strings.ToLower(name)
	}
	return m
}()
