package l7

import (
	"crypto/rand"
	"sync"
)

// entropy gives bytes of crypto/rand's, and asks the system for many at a time:
// a request needs few, and should not cost a call. It is safe for concurrent use.
type entropy struct{ blocks sync.Pool }

// A block is random bytes, of which the first were given.
type block struct {
	bytes [2048]byte
	given int
}

// read fills p, which is short.
func (e *entropy) read(p []byte) {
	b, ok := e.blocks.Get().(*block)
	if !ok {
		b = &block{given: len(b.bytes)}
	}
	if len(b.bytes)-b.given < len(p) {
		_, _ = rand.Read(b.bytes[:]) // never fails
		b.given = 0
	}
	n := copy(p, b.bytes[b.given:])
	clear(b.bytes[b.given : b.given+n])
	b.given += n
	e.blocks.Put(b)
}
