package http2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// All pseudo-header fields (RFC 9113, section 8.3; RFC 8441).
const (
	hasMethod = 1 << iota
	hasScheme
	hasAuthority
	hasPath
	hasProtocol
	hasStatus
)

// A block collects a field section while it is decoded. It separates the
// pseudo-header fields and checks the rules common to all sections.
type block struct {
	maxBytes, maxFields int
	ofServer            bool // the peer is a server

	pseudo                                          uint8
	method, scheme, authority, path, protocol, code string
	fields                                          []message.Field // reused for the next section
	host                                            string
	hasHost                                         bool
	length                                          int64 // Content-Length, or -1 without one

	size, count int
	crumbs      int    // number of Cookie fields
	regular     bool   // a regular field was seen
	tooLarge    bool   // over a limit; later fields were dropped
	fault       string // the first broken rule, or ""

	// The latest long names and values that were checked, because a field of the
	// section may refer to an earlier field with one byte.
	checkedNames, checkedValues [4]string
}

// reset prepares b for the next section.
func (b *block) reset() {
	clear(b.fields)
	*b = block{maxBytes: b.maxBytes, maxFields: b.maxFields, ofServer: b.ofServer, fields: b.fields[:0], length: -1}
}

// release frees the section's memory, so that an idle connection does not keep
// the last head.
func (b *block) release() {
	b.reset()
	if cap(b.fields) > keptFields {
		b.fields = nil
	}
}

// keptFields is the number of fields for which a block keeps memory between sections.
const keptFields = 32

// add consumes the next field of the section. It is an emit function for
// hpack.Decoder, and reports whether it wants more fields.
func (b *block) add(f hpack.HeaderField) bool {
	b.size += int(f.Size())
	if b.count++; b.size > b.maxBytes || b.count > b.maxFields {
		b.tooLarge = true
	}
	if b.tooLarge {
		return false
	}
	if b.fault != "" {
		return true // the sizes of later fields count too
	}
	if f.IsPseudo() {
		b.fault = b.addPseudo(f.Name, f.Value)
	} else {
		b.regular = true
		b.fault = b.addRegular(f.Name, f.Value)
	}
	return true
}

func (b *block) addPseudo(name, value string) (fault string) {
	var bit uint8
	var into *string
	switch name {
	case ":method":
		bit, into = hasMethod, &b.method
	case ":scheme":
		bit, into = hasScheme, &b.scheme
	case ":authority":
		bit, into = hasAuthority, &b.authority
	case ":path":
		bit, into = hasPath, &b.path
	case ":protocol":
		bit, into = hasProtocol, &b.protocol
	case ":status":
		bit, into = hasStatus, &b.code
	default:
		return "an unknown pseudo-header field"
	}
	if b.regular {
		return "a pseudo-header field after a regular field"
	}
	if b.pseudo&bit != 0 {
		return "a repeated pseudo-header field"
	}
	b.pseudo |= bit
	*into = value
	return ""
}

func (b *block) addRegular(name, value string) (fault string) {
	if !(len(name) >= longText && isIn(&b.checkedNames, name)) {
		if !message.IsLowerToken(name) {
			return "a field name that is not a lower-case token"
		}
		remember(&b.checkedNames, name)
	}
	if !(len(value) >= longText && isIn(&b.checkedValues, value)) {
		if !message.IsValue(value) {
			return "a field value with control characters or surrounding blanks"
		}
		remember(&b.checkedValues, value)
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "upgrade":
		// Section 8.2.2 calls such responses malformed too. But some HTTP/2
		// servers, net/http among them, forward these fields from programs
		// written for HTTP/1.1. They do not affect framing, so it is enough to
		// drop them.
		if b.ofServer {
			return ""
		}
		return "a connection field of HTTP/1.1"
	case "transfer-encoding", "http2-settings":
		return "a connection field of HTTP/1.1" // section 8.2.2
	case "te":
		if value != "trailers" {
			return "a TE other than trailers"
		}
	case "content-length":
		n, ok := parseLength(value)
		if !ok {
			return "a Content-Length that is not a plain decimal number"
		}
		if b.length >= 0 {
			return "a repeated Content-Length"
		}
		b.length = n
	case "host":
		if b.hasHost {
			return "a repeated Host"
		}
		b.hasHost, b.host = true, value
		return "" // request uses it for Authority
	case "cookie":
		b.crumbs++
	}
	b.fields = append(b.fields, message.Field{Name: name, Value: value})
	return ""
}

// take returns the section's fields, with spare capacity for the fields that
// policy adds. It joins cookie crumbs, which only HTTP/2 allows (section
// 8.2.3).
func (b *block) take() message.Fields {
	if len(b.fields) == 0 {
		return nil
	}
	if b.crumbs > 1 {
		b.joinCookies()
	}
	if n := len(b.fields); n > keptFields && cap(b.fields) <= n+n/2 {
		fields := b.fields
		b.fields = nil
		return fields
	}
	const room = 6 // fields that policy may add
	return append(make(message.Fields, 0, len(b.fields)+room), b.fields...)
}

func (b *block) joinCookies() {
	var all strings.Builder
	first := -1
	kept := b.fields[:0]
	for _, f := range b.fields {
		if f.Name != "cookie" {
			kept = append(kept, f)
			continue
		}
		if first < 0 {
			first = len(kept)
			kept = append(kept, f)
		} else {
			all.WriteString("; ")
		}
		all.WriteString(f.Value)
	}
	clear(b.fields[len(kept):])
	b.fields = kept
	b.fields[first].Value = all.String()
}

// longText is the length from which a repeated name or value is found, not checked again.
const longText = 64

// isIn reports whether s is one of the latest long strings. Strings from the same entry
// of the decoder's table share their bytes, which makes the comparison fast.
func isIn(latest *[4]string, s string) bool { return latest[len(s)%len(latest)] == s }

func remember(latest *[4]string, s string) {
	if len(s) >= longText {
		latest[len(s)%len(latest)] = s
	}
}

// parseLength parses a Content-Length: only digits, and no leading zeros, which
// some programs read as octal.
func parseLength(s string) (int64, bool) {
	if len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// request converts the section to the head of a request, or returns why it
// cannot (sections 8.3.1 and 8.5; RFC 8441, section 4). end says that no body
// follows.
func (b *block) request(r *message.Request, end, extendedConnect bool) (fault string) {
	const all = hasMethod | hasScheme | hasAuthority | hasPath | hasProtocol
	switch {
	case b.fault != "":
		return b.fault
	case b.pseudo&^all != 0:
		return "a request with a response's pseudo-header field"
	case !message.IsToken(b.method):
		return "a method that is not a token"
	}
	switch connect := b.method == "CONNECT"; {
	case b.pseudo&hasProtocol != 0 && (!connect || !extendedConnect || !message.IsToken(b.protocol)):
		return "a :protocol that is not allowed"
	case connect && b.protocol == "":
		if b.pseudo != hasMethod|hasAuthority {
			return "a CONNECT with pseudo-header fields other than :authority"
		}
	case b.scheme != "http" && b.scheme != "https":
		return "a :scheme that is neither http nor https"
	case b.path == "*":
		if b.method != "OPTIONS" {
			return `a :path of "*" without OPTIONS`
		}
	case !message.IsTarget(b.path):
		return "a :path that is neither a path nor *"
	}
	authority := b.authority
	switch {
	case b.pseudo&hasAuthority == 0:
		authority = b.host
	case b.hasHost && !message.EqualFold(b.host, authority):
		return "a Host that differs from :authority"
	}
	if !message.IsAuthority(authority) {
		return "an :authority that is not a host with an optional port"
	}
	length := b.length
	if end {
		if length > 0 {
			return "a Content-Length without a body"
		}
		length = 0
	}
	*r = message.Request{
		Method: b.method, Scheme: b.scheme, Authority: authority, Target: b.path, Protocol: b.protocol,
		Fields: b.take(), Length: length, Major: 2,
	}
	return ""
}

// response converts the section to the head of a response, or returns why it
// cannot (section 8.3.2). end says that no body follows. head says that no body
// may follow, because the request was a HEAD.
func (b *block) response(r *message.Response, end, head bool) (fault string) {
	if b.fault != "" {
		return b.fault
	}
	if b.pseudo != hasStatus {
		return "a response without :status, or with another pseudo-header field"
	}
	if len(b.code) != 3 || b.code[0] < '1' || b.code[0] > '5' || b.code[1] < '0' || b.code[1] > '9' || b.code[2] < '0' || b.code[2] > '9' {
		return "a :status outside 100 to 599"
	}
	status := int(b.code[0]-'0')*100 + int(b.code[1]-'0')*10 + int(b.code[2]-'0')
	if status == 101 {
		return "a 101, which HTTP/2 does not support" // section 8.6
	}
	length := b.length
	switch {
	case status < 200:
		if end {
			return "an interim response that ends the stream"
		}
		if b.length >= 0 {
			return "an interim response with a Content-Length" // RFC 9110, section 8.6
		}
		length = 0
	case status == 204:
		if b.length > 0 {
			return "a 204 with a Content-Length"
		}
		length = 0
	case !mayHaveBody(status, head):
		length = 0
	case end:
		if length > 0 {
			return "a Content-Length without a body"
		}
		length = 0
	}
	*r = message.Response{Status: status, Fields: b.take(), Length: length, Declared: b.length}
	return ""
}

// mayHaveBody reports whether a response has a body, even an empty one. head says
// that it answers a HEAD request.
func mayHaveBody(status int, head bool) bool {
	return status >= 200 && status != 204 && status != 304 && !head
}

// trailer converts the section to a trailer, or returns why it cannot (section
// 8.1).
func (b *block) trailer() (message.Fields, string) {
	switch {
	case b.fault != "":
		return nil, b.fault
	case b.tooLarge:
		return nil, "the trailer is too large"
	case b.pseudo != 0:
		return nil, "a pseudo-header field in a trailer"
	case b.length >= 0, b.hasHost:
		return nil, "a field in a trailer that belongs in a head" // RFC 9110, section 6.5.1
	}
	return b.take(), ""
}
