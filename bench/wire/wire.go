// Package wire is the protocol between the load generator and the backend over
// a byte stream, which lets both check every byte that they receive.
//
// A stream begins with a header of HeaderSize bytes, which selects the
// backend's operation and the seed. Bulk bytes are a fixed pattern with a
// prime period: bytes that are lost, duplicated, swapped or from another
// connection do not match it.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
)

// An Op is the backend's operation on a connection.
type Op byte

const (
	// Echo returns everything it receives.
	Echo Op = iota + 1
	// Source sends the pattern until the client disconnects.
	Source
	// Sink receives the pattern until the client ends the stream.
	Sink
)

// HeaderSize is the size of a stream's header.
const HeaderSize = 16

// magic begins every header.
const magic = "bench01"

// ErrHeader reports a stream that does not begin with a header.
var ErrHeader = errors.New("the stream does not begin with a header")

// AppendHeader appends a header to b.
func AppendHeader(b []byte, op Op, seed uint64) []byte {
	b = append(b, magic...)
	b = append(b, byte(op))
	return binary.BigEndian.AppendUint64(b, seed)
}

// ReadHeader reads a header.
func ReadHeader(r io.Reader) (Op, uint64, error) {
	var h [HeaderSize]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	if string(h[:len(magic)]) != magic {
		return 0, 0, ErrHeader
	}
	return Op(h[len(magic)]), binary.BigEndian.Uint64(h[len(magic)+1:]), nil
}

// MaxChunk is the maximum size of a result of At.
const MaxChunk = 256 << 10

// period of the pattern: a prime, so not a multiple of any buffer's size.
const period = 65521

// pattern is a whole period and the beginning of the next one, for chunks that
// cross its end. It is never modified.
var pattern = func() []byte {
	p := make([]byte, period+MaxChunk)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range period {
		p[i] = byte(r.Uint32())
	}
	for i := period; i < len(p); i++ {
		p[i] = p[i-period]
	}
	return p
}()

// At returns the n bytes of the pattern of seed at offset; n is at most
// MaxChunk. They must not be modified.
func At(seed, offset uint64, n int) []byte {
	at := (seed%period + offset%period) % period
	return pattern[at : at+uint64(n)]
}

// Matches reports whether b is the pattern of seed at offset.
func Matches(seed, offset uint64, b []byte) bool {
	for len(b) > MaxChunk {
		if !Matches(seed, offset, b[:MaxChunk]) {
			return false
		}
		offset, b = offset+MaxChunk, b[MaxChunk:]
	}
	return bytes.Equal(b, At(seed, offset, len(b)))
}
