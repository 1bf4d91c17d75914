package l7

import (
	"io"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A body is one that arrives on a connection of HTTP/1.1. The zero body is
// empty.
type body struct {
	kind  bodyKind
	left  int64 // of a sized one
	ended bool  // all of it was consumed
	err   error // what is wrong with it
	ahead []byte
	chunk *http1.Chunked // of a chunked one
}

type bodyKind uint8

const (
	noBody bodyKind = iota
	sized
	chunked
	endless // until the stream ends
)

// chunkeds lends decoders of chunks.
type chunkeds = pooled[http1.Chunked]

// start begins a body of a length, or one in chunks; -1: until the end.
func (b *body) start(length int64, inChunks bool, l *http1.Limits, lend *chunkeds) {
	*b = body{}
	switch {
	case inChunks:
		b.kind, b.chunk = chunked, lend.get()
		b.chunk.Reset(l)
	case length < 0:
		b.kind = endless
	case length > 0:
		b.kind, b.left = sized, length
	default:
		b.ended = true
	}
}

// free gives back what the body borrowed.
func (b *body) free(lend *chunkeds) {
	if b.chunk != nil {
		lend.put(b.chunk)
	}
	*b = body{ended: b.ended, err: b.err}
}

// next returns what there is of the body without waiting, io.EOF at its end,
// and nothing if more has to come first.
func (b *body) next(in *inflow) (p []byte, err error) {
	if p = b.ahead; p != nil {
		b.ahead = nil
		return p, nil
	}
	switch {
	case b.err != nil:
		return nil, b.err
	case b.ended:
		return nil, io.EOF
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
	in.consume(len(p))
	return p, nil
}

func (b *body) nextChunk(in *inflow) (p []byte, err error) {
	for len(p) == 0 && err == nil && len(in.unread) > 0 {
		var n int
		p, n, err = b.chunk.Next(in.unread)
		in.consume(n)
	}
	b.ended = b.chunk.Done()
	if err == io.EOF && len(p) > 0 {
		err = nil
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return p, err
}

// ready reports whether next has something, or the end.
func (b *body) ready(in *inflow) bool {
	if b.ahead != nil || b.ended || b.err != nil {
		return true
	}
	if len(in.unread) == 0 {
		if in.err != nil {
			return true
		}
		if in.tls != nil && !in.open {
			in.release() // before a wait, if need be
			return false
		}
		if got, err := in.try(); !got {
			in.release()
			return err != nil
		}
	}
	p, err := b.next(in)
	b.ahead = p
	return len(p) > 0 || err != nil
}

// trailer returns the trailer of a body in chunks that has ended.
func (b *body) trailer() message.Fields {
	if b.chunk == nil || !b.ended {
		return nil
	}
	return b.chunk.Trailer()
}
