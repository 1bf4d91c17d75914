package socket

import (
	"sync"
	"sync/atomic"
)

const (
	// BufferSize is the length of the buffers that Get lends: two TLS records.
	BufferSize = 32 << 10

	// bulkSize is the length of those for a connection in full flow.
	bulkSize = 128 << 10
)

// A Pool lends buffers. The zero value is ready to use, by any number of
// goroutines.
type Pool struct {
	free, bulk sync.Pool
	lent       *atomic.Int64 // nil: not counted
}

// Count has the pool keep in n how many buffers are lent. A buffer that nobody
// gives back costs nothing but another in its place, so nobody would notice; a
// test does. It must be called before the pool is used.
func (p *Pool) Count(n *atomic.Int64) { p.lent = n }

// Get lends a buffer of BufferSize. Its content is arbitrary.
func (p *Pool) Get() *[]byte { return p.lend(&p.free, BufferSize) }

// Put takes back a buffer that Get lent. The caller must not use it any more.
func (p *Pool) Put(b *[]byte) { p.put(b) }

func (p *Pool) getBulk() *[]byte { return p.lend(&p.bulk, bulkSize) }

// put takes back a buffer of either kind.
func (p *Pool) put(b *[]byte) {
	if p.lent != nil {
		p.lent.Add(-1)
	}
	if len(*b) == bulkSize {
		p.bulk.Put(b)
	} else {
		p.free.Put(b)
	}
}

func (p *Pool) lend(from *sync.Pool, size int) *[]byte {
	if p.lent != nil {
		p.lent.Add(1)
	}
	if b, ok := from.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, size)
	return &b
}
