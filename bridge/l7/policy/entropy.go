package policy

import (
	"crypto/rand"
	"sync"
)

// Entropy hands out random bytes from crypto/rand. It reads whole blocks from
// the system, so that the few bytes of one request do not cost a system call.
// The zero value is ready to use, by several goroutines at once.
type Entropy struct{ blocks sync.Pool }

// A block holds random bytes and counts those already handed out.
type block struct {
	bytes [2048]byte
	used  int
}

// Read fills p, which must be short.
func (e *Entropy) Read(p []byte) {
	b, ok := e.blocks.Get().(*block)
	if !ok {
		b = &block{used: len(b.bytes)}
	}
	if len(b.bytes)-b.used < len(p) {
		_, _ = rand.Read(b.bytes[:]) // never fails
		b.used = 0
	}
	n := copy(p, b.bytes[b.used:])
	clear(b.bytes[b.used : b.used+n])
	b.used += n
	e.blocks.Put(b)
}
