package socket

import "sync"

// BufferSize is the length of a Pool's buffers: two TLS records.
const BufferSize = 32 << 10

// A Pool lends buffers of BufferSize. The zero value is ready to use, by any
// number of goroutines.
type Pool struct {
	free sync.Pool
}

// Get lends a buffer. Its content is arbitrary.
func (p *Pool) Get() *[]byte {
	if b, ok := p.free.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, BufferSize)
	return &b
}

// Put takes back a buffer that Get lent. The caller must not use it any more.
func (p *Pool) Put(b *[]byte) { p.free.Put(b) }
