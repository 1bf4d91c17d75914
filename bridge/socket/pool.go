package socket

import (
	"sync"
	"sync/atomic"
)

const (
	// BufferSize is the length of Get's buffers: two TLS records.
	BufferSize = 32 << 10

	// bulkSize is the size of a read after a read that returned much, and the smallest
	// read in a bulk flow. flowSize is the largest.
	bulkSize = 128 << 10
	flowSize = 512 << 10

	// slack is the additional length of a buffer for a large read or write. It has
	// room for a partial TLS record, or for the overhead of each record.
	slack = 32 << 10

	// maxFlows is how many of the largest buffers a Pool lends at a time. A goroutine
	// uses at most two, and only while it runs.
	maxFlows = 64
)

// sizes are the lengths of a Pool's buffers. A Pool lends only those of basic, bulk and
// flow; a Lender with a Budget lends the others too.
var sizes = [...]int{1 << 10, 4 << 10, 16 << 10, BufferSize, 64 << 10, bulkSize + slack, flowSize + slack}

// Indexes into sizes.
const (
	basic = 3
	bulk  = 5
	flow  = 6
)

// A Pool lends buffers. The zero value is ready to use, by any number of
// goroutines.
type Pool struct {
	free  [len(sizes)]sync.Pool
	flows atomic.Int32  // the number of largest buffers on loan
	lent  *atomic.Int64 // the number of buffers on loan; nil: not counted
}

// Count makes the pool store in n how many buffers are on loan. A lost buffer has no
// visible effect, because the pool allocates another one. Tests detect the loss by
// the count. Count must be called before the pool is used.
func (p *Pool) Count(n *atomic.Int64) { p.lent = n }

func (p *Pool) count(more int64) {
	if p.lent != nil {
		p.lent.Add(more)
	}
}

// Get lends a buffer of BufferSize. Its content is arbitrary.
func (p *Pool) Get() *[]byte { return p.lend(basic) }

// Lend lends a buffer of at least n bytes.
func (p *Pool) Lend(n int) *[]byte {
	switch {
	case n <= sizes[basic]:
		return p.lend(basic)
	case n <= sizes[bulk]:
		return p.lend(bulk)
	}
	return p.make(n)
}

// make lends a new buffer of n bytes.
func (p *Pool) make(n int) *[]byte {
	if n == sizes[flow] {
		n++ // a different size, so that Put does not count it as one of the largest
	}
	p.count(1)
	b := make([]byte, n)
	return &b
}

// LendLarge lends a buffer of n bytes, or the largest available. The caller must return
// it before it waits.
func (p *Pool) LendLarge(n int) *[]byte {
	if n <= sizes[bulk] {
		return p.Lend(n)
	}
	if p.flows.Add(1) > maxFlows {
		p.flows.Add(-1)
		return p.lend(bulk)
	}
	return p.lend(flow)
}

func (p *Pool) lend(class int) *[]byte {
	p.count(1)
	if b, ok := p.free[class].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, sizes[class])
	return &b
}

// Put returns a buffer to the pool. The caller must not use it afterward.
func (p *Pool) Put(b *[]byte) {
	p.count(-1)
	for class, size := range sizes {
		if len(*b) == size {
			p.free[class].Put(b)
			if class == flow {
				p.flows.Add(-1)
			}
			return
		}
	}
}

// Trim moves content, a part of b, to the start of a buffer that has no more room than
// content needs, and returns b to the pool. It is for bytes that may wait long.
func (p *Pool) Trim(b *[]byte, content []byte) *[]byte {
	if len(content) > len(*b)/2 {
		copy(*b, content)
		return b
	}
	p.count(1)
	c := make([]byte, len(content))
	copy(c, content)
	p.Put(b)
	return &c
}

// Shrink moves content, a part of b, to the start of a smaller buffer and returns b to
// the pool. If no smaller buffer is large enough, it returns b. So a waiting goroutine
// holds no larger buffer than it needs.
func (p *Pool) Shrink(b *[]byte, content []byte) *[]byte {
	if len(*b) <= BufferSize {
		return b
	}
	smaller := p.Lend(len(content))
	if len(*smaller) >= len(*b) {
		p.Put(smaller)
		return b
	}
	copy(*smaller, content)
	p.Put(b)
	return smaller
}
