package socket

import "sync"

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
}

// Get lends a buffer of BufferSize. Its content is arbitrary.
func (p *Pool) Get() *[]byte { return lend(&p.free, BufferSize) }

// Put takes back a buffer that Get lent. The caller must not use it any more.
func (p *Pool) Put(b *[]byte) { p.free.Put(b) }

func (p *Pool) getBulk() *[]byte { return lend(&p.bulk, bulkSize) }

// put takes back a buffer of either kind.
func (p *Pool) put(b *[]byte) {
	if len(*b) == bulkSize {
		p.bulk.Put(b)
	} else {
		p.free.Put(b)
	}
}

func lend(from *sync.Pool, size int) *[]byte {
	if b, ok := from.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, size)
	return &b
}
