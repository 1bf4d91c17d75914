package http2

import (
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// The pseudo-header fields there are (RFC 9113, section 8.3; RFC 8441).
const (
	hasMethod = 1 << iota
	hasScheme
	hasAuthority
	hasPath
	hasProtocol
	hasStatus
)

// A block is a field section as it is decoded: pseudo-header fields taken
// apart, and every rule checked that holds for any section.
type block struct {
	maxBytes, maxFields int
	ofServer            bool // what is decoded are responses

	pseudo                                          uint8
	method, scheme, authority, path, protocol, code string
	fields                                          []message.Field // reused for the next
	host                                            string
	hasHost                                         bool
	length                                          int64 // of Content-Length; -1: none

	size, count int
	crumbs      int    // how many Cookie fields
	regular     bool   // a field that is no pseudo-header field was seen
	tooLarge    bool   // past a limit: what followed is not here
	fault       string // the first rule that was broken; "": none
}

// reset makes b ready for the next section.
func (b *block) reset() {
	clear(b.fields)
	*b = block{maxBytes: b.maxBytes, maxFields: b.maxFields, ofServer: b.ofServer, fields: b.fields[:0], length: -1}
}

// release drops what the section was made of, so that an idle connection does not
// keep the last head that came.
func (b *block) release() {
	b.reset()
	const keep = 32 // fields
	if cap(b.fields) > keep {
		b.fields = nil
	}
}

// add takes the next field of the section; it is an emit function of
// hpack.Decoder. It reports whether more are wanted.
func (b *block) add(f hpack.HeaderField) bool {
	b.size += int(f.Size())
	if b.count++; b.size > b.maxBytes || b.count > b.maxFields {
		b.tooLarge = true
	}
	if b.tooLarge {
		return false
	}
	if b.fault != "" {
		return true // its size is still counted
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
		return "a pseudo-header field that there is not"
	}
	if b.regular {
		return "a pseudo-header field behind others"
	}
	if b.pseudo&bit != 0 {
		return "a repeated pseudo-header field"
	}
	b.pseudo |= bit
	*into = value
	return ""
}

func (b *block) addRegular(name, value string) (fault string) {
	if !isLowerToken(name) {
		return "a field name that is no lower-case token"
	}
	if !message.IsValue(value) {
		return "a field value that has control characters, or blanks at its ends"
	}
	switch name {
	case "connection", "proxy-connection", "keep-alive", "upgrade":
		// Section 8.2.2 calls responses malformed too, but some servers of
		// HTTP/2 send what a program for HTTP/1.1 gave them, net/http's among
		// them. It frames nothing, so it is enough that it goes no further.
		if b.ofServer {
			return ""
		}
		return "a field of another version's connections"
	case "transfer-encoding", "http2-settings":
		return "a field of another version's connections" // section 8.2.2
	case "te":
		if value != "trailers" {
			return "a TE other than trailers"
		}
	case "content-length":
		n, ok := parseLength(value)
		if !ok {
			return "a Content-Length that is no length"
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
		return "" // authority takes its place
	case "cookie":
		b.crumbs++
	}
	b.fields = append(b.fields, message.Field{Name: name, Value: value})
	return ""
}

// take returns the section's fields, with room for some more. Cookies that
// were sent in crumbs are whole again, for only HTTP/2 knows them otherwise
// (section 8.2.3).
func (b *block) take() message.Fields {
	if len(b.fields) == 0 {
		return nil
	}
	if b.crumbs > 1 {
		b.joinCookies()
	}
	const room = 6 // for what policy adds
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

// isLowerToken reports whether s can be the name of a field in HTTP/2.
func isLowerToken(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; 'A' <= c && c <= 'Z' || !message.IsTokenByte(c) {
			return false
		}
	}
	return s != ""
}

// parseLength parses a Content-Length: digits alone, and no leading zeros, which
// some read as octal.
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

// request makes the section a request's head, or says why it is none (sections
// 8.3.1 and 8.5; RFC 8441, section 4). end tells that no body follows.
func (b *block) request(r *message.Request, end, extendedConnect bool) (fault string) {
	const all = hasMethod | hasScheme | hasAuthority | hasPath | hasProtocol
	switch {
	case b.fault != "":
		return b.fault
	case b.pseudo&^all != 0:
		return "a request with a response's pseudo-header field"
	case !message.IsToken(b.method):
		return "a method that is no token"
	}
	switch connect := b.method == "CONNECT"; {
	case b.pseudo&hasProtocol != 0 && (!connect || !extendedConnect || !message.IsToken(b.protocol)):
		return "a :protocol that was not asked for"
	case connect && b.protocol == "":
		if b.pseudo != hasMethod|hasAuthority {
			return "a CONNECT with other pseudo-header fields than :authority"
		}
	case b.scheme != "http" && b.scheme != "https":
		return "a :scheme that is neither http nor https"
	case b.path == "*":
		if b.method != "OPTIONS" {
			return `a :path of "*" without OPTIONS`
		}
	case !message.IsTarget(b.path):
		return "a :path that is none"
	}
	authority := b.authority
	switch {
	case b.pseudo&hasAuthority == 0:
		authority = b.host
	case b.hasHost && !message.EqualFold(b.host, authority):
		return "a Host that is not the :authority"
	}
	if !message.IsAuthority(authority) {
		return "an :authority that is no host"
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

// response makes the section a response's head, or says why it is none
// (section 8.3.2). end tells that no body follows, head that none can, for the
// request was a HEAD.
func (b *block) response(r *message.Response, end, head bool) (fault string) {
	if b.fault != "" {
		return b.fault
	}
	if b.pseudo != hasStatus {
		return "a response without :status, or with another pseudo-header field"
	}
	if len(b.code) != 3 || b.code[0] < '1' || b.code[0] > '5' || b.code[1] < '0' || b.code[1] > '9' || b.code[2] < '0' || b.code[2] > '9' {
		return "a :status that is none"
	}
	status := int(b.code[0]-'0')*100 + int(b.code[1]-'0')*10 + int(b.code[2]-'0')
	if status == 101 {
		return "a 101, which HTTP/2 has not" // section 8.6
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
	case status == 304, head:
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

// trailer makes the section a trailer, or says why it is none (section 8.1).
func (b *block) trailer() (message.Fields, string) {
	switch {
	case b.fault != "":
		return nil, b.fault
	case b.tooLarge:
		return nil, "a trailer larger than is allowed"
	case b.pseudo != 0:
		return nil, "a pseudo-header field in a trailer"
	case b.length >= 0, b.hasHost:
		return nil, "a field in a trailer that belongs in a head" // RFC 9110, section 6.5.1
	}
	return b.take(), ""
}
