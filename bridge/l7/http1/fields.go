package http1

import (
	"math"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// framing holds the parts of a head that affect the framing of its message and
// the life of its connection.
type framing struct {
	host                string
	hosts               int
	length              int64 // Content-Length, or -1 without one
	hasTransferEncoding bool  // has Transfer-Encoding
	chunked             bool  // chunked is one of its codings
	otherCodings        bool  // it has other codings
	afterChunked        bool  // a coding, or an empty list element, follows chunked
	options             int   // number of connection options
	close, keepAlive    bool  // connection options seen
	upgrade             bool  // connection option seen
	upgrades            bool  // has Upgrade with a value
	expected            bool  // has Expect
}

// parseFields parses a field section, which begins after the start line and
// ends with its empty line. It appends the fields and records what they say
// about framing. If takeHost is set, Host is recorded and not appended.
func (f *framing) parseFields(s string, l *Limits, fields message.Fields, takeHost bool) (message.Fields, error) {
	f.length = -1
	room := l.fields()
	for {
		name, value, rest, err := cutField(s)
		if err != nil || rest == "" {
			return fields, err
		}
		s = rest
		if room--; room < 0 {
			return fields, errFieldCount
		}
		// Compare lengths first: that alone rules out nearly every name.
		switch len(name) {
		case len("Host"):
			if takeHost && message.EqualFold(name, "Host") {
				f.host = value
				f.hosts++
				continue
			}
		case len("Expect"):
			f.expected = f.expected || message.EqualFold(name, "Expect")
		case len("Upgrade"):
			f.upgrades = f.upgrades || value != "" && message.EqualFold(name, "Upgrade")
		case len("Connection"):
			if message.EqualFold(name, "Connection") {
				err = f.connection(value)
			}
		case len("Content-Length"):
			if message.EqualFold(name, "Content-Length") {
				err = f.contentLength(value)
			}
		case len("Transfer-Encoding"):
			if message.EqualFold(name, "Transfer-Encoding") {
				f.transferEncoding(value)
			}
		}
		if err != nil {
			return fields, err
		}
		fields = append(fields, message.Field{Name: name, Value: value})
	}
}

// cutField cuts the first line off a field section. At the empty line that ends
// the section, rest is "".
func cutField(s string) (name, value, rest string, err error) {
	i := 0
	for i < len(s) && message.IsTokenByte(s[i]) {
		i++
	}
	if i == 0 || i == len(s) || s[i] != ':' {
		return "", "", "", noField(s, i)
	}
	name, s = s[:i], s[i+1:]
	// A value ends at the first control character, which must be the carriage
	// return of the line end.
	i = message.ControlByte(s)
	if i < 0 || i+2 > len(s) || s[i] != '\r' || s[i+1] != '\n' {
		return "", "", "", badControl(s, i)
	}
	value, rest = s[:i], s[i+2:]
	if rest == "" {
		return "", "", "", errNoEnd
	}
	for value != "" && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for value != "" && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	return name, value, rest, nil
}

// noField returns the error for a line that has no colon after its name, which
// ends at i. It returns nil for the empty line that ends the section.
func noField(s string, i int) error {
	switch {
	case i == len(s):
		return errNoEnd
	case i == 0 && s == "\r\n":
		return nil
	case i == 0 && (s[0] == ' ' || s[0] == '\t'):
		// RFC 9112, section 5.2, also allows replacing the fold with blanks. But then
		// the gateway would forward a message that differs from the one that a
		// stricter hop saw.
		return errFold
	case i == 0 && s[0] == ':':
		return errNoName
	case s[i] == ' ' || s[i] == '\t':
		return errColonBlank
	case s[i] == '\n':
		return errBareLF
	case s[i] == '\r' && i+1 < len(s) && s[i+1] == '\n':
		return errNoColon
	case s[i] == '\r':
		return errBareCR
	}
	return errName
}

// badControl returns the error for a value whose first control character, at i,
// is not part of the line end.
func badControl(s string, i int) error {
	switch {
	case i < 0 || s[i] == '\r' && i+1 == len(s):
		return errNoEnd
	case s[i] == '\n':
		return errBareLF
	case s[i] == '\r':
		return errBareCR
	}
	return errControl
}

// connection records connection options (RFC 9112, section 9.3).
func (f *framing) connection(value string) error {
	for option := range message.Elements(value) {
		if f.options++; f.options > maxOptions {
			return errOptions
		}
		switch {
		case message.EqualFold(option, "close"):
			f.close = true
		case message.EqualFold(option, "keep-alive"):
			f.keepAlive = true
		case message.EqualFold(option, "upgrade"):
			f.upgrade = true
		case !message.IsToken(option):
			return errConnection
		}
	}
	return nil
}

// contentLength records a Content-Length. RFC 9112, section 6.3, would accept
// "5, 5", or two fields with "5", as 5; an upstream might use the first, the
// last, or both. The grammar allows leading zeros, but some programs read them
// as octal, so they are rejected.
func (f *framing) contentLength(value string) error {
	if f.length >= 0 {
		return errLengths
	}
	if value == "" || value[0] == '0' && len(value) > 1 {
		return errLength
	}
	n := int64(0)
	for i := 0; i < len(value); i++ {
		c := value[i] - '0'
		if c > 9 {
			return errLength
		}
		if n > (math.MaxInt64-int64(c))/10 {
			n = math.MaxInt64 // keep reading: a later byte may not be a digit
			continue
		}
		n = n*10 + int64(c)
	}
	if n == math.MaxInt64 {
		return errLengthSize
	}
	f.length = n
	return nil
}

// transferEncoding records the codings of a Transfer-Encoding; several fields
// form one list. RFC 9110 would ignore empty elements. Here they count as an
// invalid coding.
func (f *framing) transferEncoding(value string) {
	if f.hasTransferEncoding = true; !f.chunked && message.EqualFold(value, "chunked") {
		f.chunked = true
		return
	}
	others := false
	for coding := range message.Elements(value) {
		f.afterChunked = f.afterChunked || f.chunked
		if message.EqualFold(coding, "chunked") {
			f.chunked = true
		} else {
			others = true
		}
	}
	f.otherCodings = f.otherCodings || others
	f.afterChunked = f.afterChunked || !others
}

// check rejects ambiguous framing. A coding that does not end in chunked has no
// known end, which is 400 (RFC 9112, section 6.3). A coding that ends in
// chunked but contains others has an end and an unknown content, which is 501
// (section 6.1).
func (f *framing) check(minor int, l *Limits) error {
	switch {
	case f.hasTransferEncoding && f.length >= 0:
		return errLengthCoding
	case f.hasTransferEncoding && minor == 0:
		return errCodingVersion
	case f.hasTransferEncoding && (!f.chunked || f.afterChunked):
		return errCoding
	case f.otherCodings:
		return errCodingUnknown
	case f.length >= 0 && !l.body(f.length):
		return errBodySize
	}
	return nil
}

// closes reports whether the connection ends with the message (RFC 9112,
// section 9.3).
func (f *framing) closes(minor int) bool { return f.close || minor == 0 && !f.keepAlive }
