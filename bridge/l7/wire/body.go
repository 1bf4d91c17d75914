package wire

import (
	"io"
	"sync"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A Body is a message body that arrives on a connection. The zero Body is empty.
type Body struct {
	kind  bodyKind
	left  int64          // bytes of a sized body not yet consumed
	ended bool           // all of it was consumed
	err   error          // the body's fault, or nil
	ahead []byte         // bytes that Ready has decoded for Next
	then  error          // the end or fault that follows the bytes that Next returned last, or nil
	chunk *http1.Chunked // decodes a chunked body
}

type bodyKind uint8

const (
	empty bodyKind = iota
	sized
	chunked
	untilEnd // ends with the stream
)

// Decoders lends decoders of chunked bodies. The zero value is ready to use.
type Decoders struct{ pool sync.Pool }

func (d *Decoders) get() *http1.Chunked {
	if c, ok := d.pool.Get().(*http1.Chunked); ok {
		return c
	}
	return new(http1.Chunked)
}

func (d *Decoders) put(c *http1.Chunked) { d.pool.Put(c) }

// Start begins a body with a length or in chunks. With a length of -1 the body
// ends with the stream.
func (b *Body) Start(length int64, inChunks bool, l *http1.Limits, d *Decoders) {
	*b = Body{}
	switch {
	case inChunks:
		b.kind, b.chunk = chunked, d.get()
		b.chunk.Reset(l)
	case length < 0:
		b.kind = untilEnd
	case length > 0:
		b.kind, b.left = sized, length
	default:
		b.ended = true
	}
}

// StartUntilEnd begins a body that ends with the stream: the bytes of another
// protocol.
func (b *Body) StartUntilEnd() { *b = Body{kind: untilEnd} }

// Fail makes err the body's fault: its end is unknown.
func (b *Body) Fail(err error) { *b = Body{err: err} }

// UntilEnd reports whether the body ends with the stream.
func (b *Body) UntilEnd() bool { return b.kind == untilEnd }

// Ended reports whether all of the body was consumed.
func (b *Body) Ended() bool { return b.ended }

// Err returns the body's fault, or nil if none is known.
func (b *Body) Err() error { return b.err }

// End ends a body that ends with the stream.
func (b *Body) End() { b.ended = true }

// Arrived reports whether all of the body has arrived, and is no more than max bytes
// that were not consumed.
func (b *Body) Arrived(in *Reader, max int64) bool {
	return b.ended || b.kind == sized && b.left <= int64(len(in.unread)) && b.left <= max
}

// Skip consumes the rest of a body that has Arrived.
func (b *Body) Skip(in *Reader) {
	if b.kind == sized {
		in.Consume(int(b.left))
		b.left, b.ended = 0, true
	}
}

// Free returns a borrowed decoder.
func (b *Body) Free(d *Decoders) {
	if b.chunk != nil {
		d.put(b.chunk)
	}
	*b = Body{ended: b.ended, err: b.err}
}

// Next returns the bytes of the body that have arrived, io.EOF at its end, and
// nil if more must arrive first.
func (b *Body) Next(in *Reader) (p []byte, err error) {
	if p = b.ahead; p != nil {
		b.ahead = nil
		return p, nil
	}
	switch {
	case b.err != nil:
		return nil, b.err
	case b.ended:
		return nil, io.EOF
	case b.then != nil:
		return nil, b.stop(b.then)
	case len(in.unread) == 0:
		return nil, nil
	}
	switch b.kind {
	case chunked:
		return b.nextChunk(in)
	case sized:
		p = in.unread[:min(b.left, int64(len(in.unread)))]
		b.left -= int64(len(p))
		b.ended = b.left == 0
	default:
		p = in.unread
	}
	in.Consume(len(p))
	return p, nil
}

func (b *Body) nextChunk(in *Reader) (p []byte, err error) {
	for len(p) < smallChunk && err == nil && len(in.unread) > 0 {
		next, n, fault := b.chunk.Next(in.unread)
		in.Consume(n)
		if err = fault; len(p) == 0 {
			p = next
		} else {
			// The buffer has the bytes of both chunks, and between them only what was
			// decoded. So the second chunk can move to the end of the first.
			p = append(p, next...)
		}
	}
	switch {
	case err == nil:
		return p, nil
	case len(p) > 0:
		b.then = err
		return p, nil
	}
	return nil, b.stop(err)
}

// stop records the end of the body, or its fault.
func (b *Body) stop(err error) error {
	if b.then = nil; err == io.EOF {
		b.ended = true
	} else {
		b.err = err
	}
	return err
}

// smallChunk is the size below which a chunk is joined with the next: each part of a body
// that Next returns costs more than a few bytes do.
const smallChunk = 256

// Ready reports whether Next would return bytes, the end or an error.
func (b *Body) Ready(in *Reader) bool {
	if b.ahead != nil || b.ended || b.err != nil || b.then != nil {
		return true
	}
	if len(in.unread) == 0 {
		if in.err != nil {
			return true
		}
		if in.tls != nil && !in.open {
			in.Release() // the caller may wait next
			return false
		}
		if got, err := in.Try(); !got {
			in.Release()
			return err != nil
		}
	}
	p, err := b.Next(in)
	b.ahead = p
	return len(p) > 0 || err != nil
}

// Trailer returns the trailer of a chunked body that has ended.
func (b *Body) Trailer() message.Fields {
	if b.chunk == nil || !b.ended {
		return nil
	}
	return b.chunk.Trailer()
}
