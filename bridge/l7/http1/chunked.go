package http1

import (
	"bytes"
	"io"
	"math"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Chunked decodes a body in chunks (RFC 9112, section 7.1). Reset makes one
// ready; its memory is used again.
type Chunked struct {
	limits Limits
	state  chunkState
	left   uint64 // of the chunk
	digits int    // of the chunk's size
	total  int64  // data of all chunks so far
	extra  int64  // bytes of extensions so far
	err    error  // what was wrong

	line    int    // where in trailer the line begins that is being read
	trailer []byte // section, as it comes
	fields  message.Fields
}

// A chunkState says what comes next.
type chunkState uint8

const (
	chunkSize    chunkState = iota // a size's first digit
	chunkDigits                    // another digit, or what ends a size
	extName                        // an extension's name
	extNameRest                    // more of it, or what ends it
	extValue                       // its value
	extToken                       // more of a value that is a token, or what ends it
	extQuoted                      // more of one that is quoted
	extEscaped                     // what is escaped in it
	extEnd                         // what ends an extension
	chunkLineEnd                   // the line feed after a size
	chunkData                      // data
	chunkDataEnd                   // the carriage return after data
	chunkEnd                       // the line feed after that
	trailerLine                    // a line of the trailer, or the rest of one
	chunkedDone
)

// maxDigits is how long the size of a chunk may be, so that leading zeros are
// not forever.
const maxDigits = 16

// Extensions may be as long as maxExtensions in all, and a part in
// extensionShare of the data more. They are dropped: nobody is to spend more on
// them than on data.
const (
	maxExtensions  = 4 << 10
	extensionShare = 16
)

// Reset makes c ready for a body.
func (c *Chunked) Reset(l *Limits) {
	*c = Chunked{limits: *l, trailer: c.trailer[:0], fields: c.fields[:0]}
}

// Next decodes from in, what has arrived and is not consumed yet. It returns
// data, a part of in that may be empty, and how much of in is consumed by then.
// While err is nil and n is less than len(in) there is more to be had. io.EOF
// comes with the end of the body, its trailer included; what in has after n is
// no part of it. Any other error is an *Error, and final.
//
// However what arrives is split, the data, the errors, and where they come are
// the same.
func (c *Chunked) Next(in []byte) (data []byte, n int, err error) {
	for n < len(in) && c.state != chunkedDone && c.err == nil {
		switch c.state {
		case chunkData:
			rest := in[n:]
			if uint64(len(rest)) >= c.left {
				rest, c.state = rest[:c.left], chunkDataEnd
			}
			c.left -= uint64(len(rest))
			c.total += int64(len(rest))
			return rest, n + len(rest), nil
		case trailerLine:
			var m int
			m, c.err = c.trailerLine(in[n:])
			n += m
		default:
			if c.err = c.step(in[n]); c.err == nil {
				n++
			}
		}
	}
	if c.err == nil && c.state == chunkedDone {
		return nil, n, io.EOF
	}
	return nil, n, c.err
}

// Done reports whether the body has ended.
func (c *Chunked) Done() bool { return c.state == chunkedDone && c.err == nil }

// Trailer returns the fields of the trailer once the body has ended. They are
// valid until Reset; their strings for ever.
func (c *Chunked) Trailer() message.Fields { return c.fields }

// step takes one byte of what stands between the data.
func (c *Chunked) step(b byte) error {
	if c.state >= extName && c.state <= extEnd {
		return c.extension(b)
	}
	switch c.state {
	case chunkSize, chunkDigits:
		return c.size(b)
	case chunkLineEnd:
		return c.lineEnd(b)
	case chunkDataEnd:
		if b != '\r' {
			return errChunkEnd
		}
		c.state = chunkEnd
	case chunkEnd:
		if b != '\n' {
			return errChunkEnd
		}
		c.state = chunkSize
	}
	return nil
}

// size takes a byte of a chunk's size, which is digits and nothing else, and at
// least one. RFC 9112, section 7.1.1, would have us skip blanks after it.
func (c *Chunked) size(b byte) error {
	d, ok := hexDigit(b)
	switch {
	case ok && c.state == chunkSize:
		c.state, c.left, c.digits = chunkDigits, uint64(d), 1
	case ok:
		if c.digits++; c.digits > maxDigits {
			return errChunkSizeSize
		}
		c.left = c.left<<4 | uint64(d)
	case c.state == chunkSize:
		return errChunkSize
	case b == '\r':
		c.state = chunkLineEnd
	case b == ';':
		c.state = extName
	case b == '\n':
		return errChunkLine
	default:
		return errChunkSize
	}
	return nil
}

func hexDigit(b byte) (byte, bool) {
	switch {
	case '0' <= b && b <= '9':
		return b - '0', true
	case 'a' <= b && b <= 'f':
		return b - 'a' + 10, true
	case 'A' <= b && b <= 'F':
		return b - 'A' + 10, true
	}
	return 0, false
}

// lineEnd takes the line feed after a size.
func (c *Chunked) lineEnd(b byte) error {
	switch {
	case b != '\n':
		return errChunkLine
	case c.left == 0:
		c.state = trailerLine
	case c.left > uint64(math.MaxInt64-c.total):
		return errChunkSizeSize
	case !c.limits.body(c.total + int64(c.left)):
		return errBodySize
	default:
		c.state = chunkData
	}
	return nil
}

// extension takes a byte of chunk extensions (RFC 9112, section 7.1.1):
//
//	chunk-ext = *( ";" name [ "=" ( token / quoted-string ) ] )
//
// They are dropped, but read all the same: where the line ends must not be a
// matter of opinion. The RFC has blanks around ";" and "=" that no sender may
// send and a recipient is to skip; they are refused.
func (c *Chunked) extension(b byte) error {
	if c.extra++; c.extra > maxExtensions+c.total/extensionShare {
		return errExtensionSize
	}
	next := chunkSize // none
	switch c.state {
	case extName:
		if message.IsTokenByte(b) {
			next = extNameRest
		}
	case extNameRest:
		switch {
		case message.IsTokenByte(b):
			next = extNameRest
		case b == '=':
			next = extValue
		default:
			next = afterExtension(b)
		}
	case extValue:
		switch {
		case message.IsTokenByte(b):
			next = extToken
		case b == '"':
			next = extQuoted
		}
	case extToken:
		if next = extToken; !message.IsTokenByte(b) {
			next = afterExtension(b)
		}
	case extQuoted:
		switch {
		case b == '"':
			next = extEnd
		case b == '\\':
			next = extEscaped
		case b >= ' ' && b != 0x7f || b == '\t':
			next = extQuoted
		}
	case extEscaped:
		if b >= ' ' && b != 0x7f || b == '\t' {
			next = extQuoted
		}
	case extEnd:
		next = afterExtension(b)
	}
	if next == chunkSize {
		return errExtension
	}
	c.state = next
	return nil
}

// afterExtension returns what comes after an extension that b ends, chunkSize if
// it does not.
func afterExtension(b byte) chunkState {
	switch b {
	case ';':
		return extName
	case '\r':
		return chunkLineEnd
	}
	return chunkSize
}

// trailerLine takes what in has of a line of the trailer, and returns how much
// that is.
func (c *Chunked) trailerLine(in []byte) (n int, err error) {
	i := bytes.IndexByte(in, '\n')
	if n = i + 1; i < 0 {
		n = len(in)
	}
	c.trailer = append(c.trailer, in[:min(n, c.limits.trailer()+1)]...)
	end := len(c.trailer)
	switch {
	case end > c.limits.trailer():
		return 0, errTrailerSize
	case i < 0:
		return n, nil
	case end < 2 || c.trailer[end-2] != '\r':
		return 0, errBareLF
	case end-2 > c.line:
		c.line = end
		return n, nil
	}
	c.state = chunkedDone
	return n, c.parseTrailer()
}

// parseTrailer takes the fields out of a trailer that is complete.
func (c *Chunked) parseTrailer() error {
	if len(c.trailer) == len("\r\n") {
		return nil
	}
	s := string(c.trailer)
	for {
		name, value, rest, err := cutField(s)
		switch {
		case err != nil || rest == "":
			return err
		case len(c.fields) == c.limits.fields():
			return errFieldCount
		case !inTrailer(name):
			return errTrailerFraming
		}
		c.fields = append(c.fields, message.Field{Name: name, Value: value})
		s = rest
	}
}

// inTrailer reports whether a trailer may have a field as far as framing goes
// (RFC 9110, section 6.5.1). What else has no place there is for policy to drop.
func inTrailer(name string) bool {
	return !message.EqualFold(name, "Host") && !message.EqualFold(name, "Trailer") && !message.IsConnectionField(name)
}
