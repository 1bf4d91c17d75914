package http1

import (
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Request is the head of a request, and the framing of its message.
type Request struct {
	message.Request

	Chunked   bool // the body is chunked: decode it with a Chunked
	Close     bool // the connection ends with this exchange
	Upgrading bool // the client asks to switch to a protocol in the Upgrade field
	Continue  bool // the client waits for 100 (Continue) before it sends the body
}

// ParseRequest parses a complete head, as found by RequestEnd, into r. It
// overwrites everything in r, reusing the capacity of Fields. The result holds
// substrings of head. After an error, r must not be used.
func ParseRequest(head string, l *Limits, r *Request) error {
	*r = Request{Request: message.Request{Fields: r.Fields[:0]}}
	head = strings.TrimPrefix(head, "\r\n")
	target, rest, err := r.requestLine(head, l)
	if err != nil {
		return err
	}
	var f framing
	if r.Fields, err = f.parseFields(rest, l, r.Fields, true); err != nil {
		return err
	}
	if err := r.address(target, &f); err != nil {
		return err
	}
	if err := f.check(r.Minor, l); err != nil {
		return err
	}
	r.Length = max(f.length, 0)
	if f.chunked {
		r.Chunked, r.Length = true, -1
	}
	r.Close = f.closes(r.Minor)
	// HTTP/1.0 has neither upgrades nor 100-continue (RFC 9110, sections 7.8
	// and 10.1.1).
	r.Upgrading = f.upgrade && f.upgrades && r.Minor == 1
	if f.expected {
		for e := range r.Fields.Elements("Expect") {
			if !message.EqualFold(e, "100-continue") {
				return errExpect
			}
			r.Continue = r.Minor == 1 && r.Length != 0
		}
	}
	return nil
}

// requestLine parses the first line (RFC 9112, section 3) and cuts out the target.
func (r *Request) requestLine(head string, l *Limits) (target, rest string, err error) {
	i := 0
	for i < len(head) && message.IsTokenByte(head[i]) {
		i++
	}
	switch {
	case i == 0 || i == len(head):
		return "", "", errRequestLine
	case head[i] != ' ':
		return "", "", badLine(head[i:], errMethod)
	case i > maxMethod:
		return "", "", errMethodSize
	}
	r.Method, head = head[:i], head[i+1:]
	if i = strings.IndexByte(head, ' '); i <= 0 {
		return "", "", badLine(head, errRequestLine)
	}
	target, head = head[:i], head[i+1:]
	if at := message.ControlByte(target); at >= 0 {
		if strings.HasPrefix(target[at:], "\r\n") {
			return "", "", errRequestLine // no second blank in the line
		}
		return "", "", badLine(target[at:], errTargetBytes)
	}
	if len(target) > l.target() {
		return "", "", errTargetSize
	}
	const version, length = "HTTP/1.", len("HTTP/1.1\r\n")
	if len(head) < length || head[:len(version)] != version || head[length-2:length] != "\r\n" || head[7] != '1' && head[7] != '0' {
		return "", "", badVersion(r.Method, target, head)
	}
	r.Major, r.Minor = 1, int(head[7]-'0')
	return target, head[length:], nil
}

// badLine returns the error for s, which cannot continue a request line: err,
// unless a bare line feed or carriage return explains it better.
func badLine(s string, err error) error {
	switch i := message.ControlByte(s); {
	case i < 0:
		return err
	case s[i] == '\n':
		return errBareLF
	case s[i] == '\r' && (i+1 == len(s) || s[i+1] != '\n'):
		return errBareCR
	}
	return err
}

// badVersion returns the error for a version other than HTTP/1.0 and HTTP/1.1.
// RFC 9110, section 2.5, would treat HTTP/1.2 as 1.1. No such version exists,
// and an upstream might read it differently.
func badVersion(method, target, s string) error {
	end := message.ControlByte(s)
	if end < 0 || s[end] != '\r' || end+1 == len(s) || s[end+1] != '\n' {
		return badLine(s, errVersionBytes)
	}
	const like = "HTTP/0.9"
	v := s[:end]
	if len(v) != len(like) || v[:5] != like[:5] || !isDigit(v[5]) || v[6] != '.' || !isDigit(v[7]) {
		return errVersionBytes
	}
	if v == "HTTP/2.0" && method == "PRI" && target == "*" && s[end:] == "\r\n\r\n" {
		return ErrPreface
	}
	return errVersion
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// address derives scheme, authority and target from the request target and Host
// (RFC 9112, sections 3.2 and 3.3).
func (r *Request) address(target string, f *framing) error {
	switch {
	case f.hosts > 1:
		return errHosts
	case f.hosts == 0 && r.Minor > 0:
		return errNoHost
	case f.hosts == 1 && !message.IsAuthority(f.host):
		return errHost
	}
	r.Authority, r.Target = f.host, target
	switch {
	case r.Method == "CONNECT":
		return r.connect(target, f)
	case message.IsTarget(target):
		return nil
	case target == "*":
		if r.Method != "OPTIONS" {
			return errAsterisk
		}
		return nil
	}
	return r.absolute(target, f)
}

// connect parses a target in authority form (RFC 9112, section 3.2.3).
func (r *Request) connect(target string, f *framing) error {
	colon := strings.LastIndexByte(target, ':')
	if !message.IsAuthority(target) || colon < 0 || colon+1 == len(target) {
		return errConnect
	}
	for i := colon + 1; i < len(target); i++ {
		if !isDigit(target[i]) {
			return errConnect
		}
	}
	r.Authority, r.Target = target, ""
	return r.sameHost(f)
}

// absolute parses a target in absolute form (RFC 9112, section 3.2.2).
func (r *Request) absolute(target string, f *framing) error {
	if strings.IndexByte(target, '#') >= 0 {
		return errFragment
	}
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case target[0] == '/':
		return errTargetBytes
	case ok && message.EqualFold(scheme, "http"):
		r.Scheme = "http"
	case ok && message.EqualFold(scheme, "https"):
		r.Scheme = "https"
	default:
		return errTarget
	}
	r.Authority, r.Target = rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		r.Authority, r.Target = rest[:i], rest[i:]
	}
	switch {
	case r.Target == "" && r.Method == "OPTIONS":
		r.Target = "*" // RFC 9112, section 3.2.4
	case r.Target == "" || r.Target[0] == '?':
		r.Target = "/" + r.Target // RFC 9112, section 3.2.1
	}
	switch {
	case !message.IsAuthority(r.Authority):
		return errTarget
	case r.Target != "*" && !message.IsTarget(r.Target):
		return errTargetBytes
	}
	return r.sameHost(f)
}

// sameHost rejects a Host that differs from the target's. RFC 9112, section
// 3.2.2, would ignore Host, but an upstream might not.
func (r *Request) sameHost(f *framing) error {
	if f.hosts == 1 && !message.EqualFold(f.host, r.Authority) {
		return errHostDiffer
	}
	return nil
}
