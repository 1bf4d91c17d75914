package http1

import (
	"bytes"
	"io"
	"math"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Chunked decodes a chunked body (RFC 9112, section 7.1). Call Reset before
// each body; its memory is reused.
type Chunked struct {
	limits Limits
	state  chunkState
	left   uint64 // bytes left of the chunk
	digits int    // digits of the chunk size so far
	total  int64  // data of all chunks so far
	extra  int64  // bytes of extensions so far
	err    error  // the first error, which is final

	line    int    // offset in trailer of the current line
	trailer []byte // the trailer section received so far
	fields  message.Fields
}

// A chunkState says which part of the encoding is expected next.
type chunkState uint8

const (
	chunkSize    chunkState = iota // the first digit of a size
	chunkDigits                    // another digit, or the end of a size
	extName                        // the first byte of an extension's name
	extNameRest                    // more of the name, or its end
	extValue                       // the first byte of its value
	extToken                       // more of a token value, or its end
	extQuoted                      // more of a quoted value
	extEscaped                     // an escaped byte of a quoted value
	extEnd                         // the end of an extension
	chunkLineEnd                   // the line feed after a size
	chunkData                      // data
	chunkDataEnd                   // the carriage return after data
	chunkEnd                       // the line feed after that carriage return
	trailerLine                    // a trailer line, or the rest of one
	chunkedDone
)

// maxDigits bounds the digits of a chunk size, so that a peer cannot send
// leading zeros without end.
const maxDigits = 16

// Extensions may use maxExtensions bytes, plus one byte for every
// extensionShare bytes of data. The gateway drops them, so a peer must not make
// it spend more on extensions than on data.
const (
	maxExtensions  = 4 << 10
	extensionShare = 16
)

// Reset prepares c for a new body.
func (c *Chunked) Reset(l *Limits) {
	*c = Chunked{limits: *l, trailer: c.trailer[:0], fields: c.fields[:0]}
}

// Next decodes from in, the received bytes that are not yet consumed. It
// returns a part of in as data, perhaps empty, and the number of bytes
// consumed. While err is nil and n < len(in), call it again. It returns io.EOF
// at the end of the body, after the trailer; in[n:] is not part of the body.
// Any other error is an *Error, and final.
//
// The data, the errors and their positions do not depend on how the input is
// split.
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

// Trailer returns the trailer fields once the body has ended. The slice is
// valid until Reset; its strings stay valid.
func (c *Chunked) Trailer() message.Fields { return c.fields }

// step consumes one byte outside the data.
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

// size consumes one byte of a chunk size: one or more digits and nothing else.
// RFC 9112, section 7.1.1, would skip blanks after it.
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

// lineEnd consumes the line feed after a size.
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

// extension consumes one byte of the chunk extensions (RFC 9112, section
// 7.1.1):
//
//	chunk-ext = *( ";" name [ "=" ( token / quoted-string ) ] )
//
// Extensions are dropped but still parsed, because every reader must agree on
// where the line ends. The RFC lets a recipient skip blanks around ";" and "="
// that no sender may send; they are rejected here.
func (c *Chunked) extension(b byte) error {
	if c.extra++; c.extra > maxExtensions+c.total/extensionShare {
		return errExtensionSize
	}
	next := chunkSize // stays chunkSize if b is not allowed
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

// afterExtension returns the state after an extension that ends in b. It
// returns chunkSize if b cannot end one.
func afterExtension(b byte) chunkState {
	switch b {
	case ';':
		return extName
	case '\r':
		return chunkLineEnd
	}
	return chunkSize
}

// trailerLine consumes the part of in that belongs to the current trailer line.
// It returns its length.
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

// parseTrailer parses a complete trailer.
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

// inTrailer reports whether framing rules allow a field in a trailer (RFC 9110,
// section 6.5.1). Policy drops other fields that do not belong there.
func inTrailer(name string) bool {
	return !message.EqualFold(name, "Host") && !message.EqualFold(name, "Trailer") && !message.IsConnectionField(name)
}
