package http1

import "github.com/drawbridge-gateway/drawbridge/bridge/l7/message"

// A Response is the head of a response, and the framing of its message.
type Response struct {
	message.Response

	Minor      int  // version: HTTP/1.0 or HTTP/1.1
	Chunked    bool // the body is chunked: decode it with a Chunked
	UntilClose bool // the body ends with the connection; with TLS, only at close_notify
	Switched   bool // 101, or 2xx to CONNECT: another protocol follows
	Close      bool // the connection must not be reused
}

// ParseResponse parses a complete head, as found by ResponseEnd, into r. method
// is the method of the request. It overwrites everything in r, reusing the
// capacity of Fields. The result holds substrings of head. After an error,
// neither r nor the connection may be used.
//
// It accepts any valid 101. The caller compares its protocol with the requested
// one.
func ParseResponse(head, method string, l *Limits, r *Response) error {
	*r = Response{Response: message.Response{Fields: r.Fields[:0]}}
	rest, err := r.statusLine(head)
	if err != nil {
		return err
	}
	var f framing
	if r.Fields, err = f.parseFields(rest, l, r.Fields, false); err != nil {
		return inResponse(err)
	}
	if err := f.check(r.Minor, l); err != nil {
		return inResponse(err)
	}
	r.Declared, r.Close = f.length, f.closes(r.Minor)
	return r.frame(method, &f)
}

// statusLine parses the first line (RFC 9112, section 4). The space after the
// status code is required even without a reason.
func (r *Response) statusLine(head string) (rest string, err error) {
	const like = "HTTP/1.1 200 "
	if len(head) < len(like) || head[:5] != like[:5] {
		return "", errStatusLine
	}
	if v := head[5:8]; v != "1.1" && v != "1.0" {
		return "", errStatusVersion
	}
	c := head[9:12]
	if head[8] != ' ' || head[12] != ' ' || !isDigit(c[0]) || !isDigit(c[1]) || !isDigit(c[2]) {
		return "", errStatusLine
	}
	r.Minor = int(head[7] - '0')
	r.Status = int(c[0]-'0')*100 + int(c[1]-'0')*10 + int(c[2]-'0')
	if r.Status < 100 || r.Status > 599 {
		return "", errStatus
	}
	head = head[len(like):]
	i := message.ControlByte(head)
	if i < 0 || i+2 > len(head) || head[i:i+2] != "\r\n" {
		return "", inResponse(badLine(head, errReason))
	}
	r.Reason = head[:i]
	return head[i+2:], nil
}

// frame decides where the body ends (RFC 9112, section 6.3).
func (r *Response) frame(method string, f *framing) error {
	switch s := r.Status; {
	case s < 200 && r.Minor == 0:
		return errInterimVersion
	case s < 200 || s == 204:
		// Neither field is allowed (RFC 9112, section 6.1; RFC 9110, section
		// 8.6). A length of 0 is common and true, so it is accepted. Any other
		// length, or chunks, could be followed by a body that would be read as
		// the next response.
		if f.hasTransferEncoding || f.length > 0 {
			return errBodiless
		}
		if s == 101 {
			if !f.upgrade || !f.upgrades {
				return errSwitch
			}
			r.Switched, r.Close, r.Length = true, true, -1
		}
	case method == "CONNECT" && s < 300:
		r.Switched, r.Close, r.Length = true, true, -1
	case method == "HEAD" || s == 304:
	case f.chunked:
		r.Chunked, r.Length = true, -1
	case f.length >= 0:
		r.Length = f.length
	default:
		r.UntilClose, r.Close, r.Length = true, true, -1
	}
	return nil
}
