package socket

import (
	"sync"
	"sync/atomic"
)

const (
	// BufferSize is the length of the buffers that Get lends: two TLS records.
	BufferSize = 32 << 10

	// bulkSize is how much is read at once from a connection that brought much
	// before, and the least from one in full flow; flowSize is the most.
	bulkSize = 128 << 10
	flowSize = 512 << 10

	// slack is what a buffer has beyond what was read or is to be written: for
	// what TLS held back of a record, or what it adds to each.
	slack = 32 << 10

	// maxFlows is how many of the largest buffers a Pool lends at a time. A
	// goroutine has two at most, and only while it runs.
	maxFlows = 64
)

// sizes are the lengths of the buffers that a Pool lends.
var sizes = [...]int{BufferSize, bulkSize + slack, flowSize + slack}

// A Pool lends buffers. The zero value is ready to use, by any number of
// goroutines.
type Pool struct {
	free  [len(sizes)]sync.Pool
	flows atomic.Int32  // how many of the largest are lent
	lent  *atomic.Int64 // nil: not counted
}

// Count has the pool keep in n how many buffers are lent. A buffer that nobody
// gives back costs nothing but another in its place, so nobody would notice; a
// test does. It must be called before the pool is used.
func (p *Pool) Count(n *atomic.Int64) { p.lent = n }

func (p *Pool) count(more int64) {
	if p.lent != nil {
		p.lent.Add(more)
	}
}

// Get lends a buffer of BufferSize. Its content is arbitrary.
func (p *Pool) Get() *[]byte { return p.lend(0) }

// Lend lends a buffer of at least n bytes.
func (p *Pool) Lend(n int) *[]byte {
	for i, size := range sizes[:len(sizes)-1] {
		if n <= size {
			return p.lend(i)
		}
	}
	if n == sizes[len(sizes)-1] {
		n++ // so that Put does not take it for one of those that are counted
	}
	p.count(1)
	b := make([]byte, n)
	return &b
}

// LendMuch lends a buffer of n bytes, or of as many as there are to be had. It
// must be given back before a wait.
func (p *Pool) LendMuch(n int) *[]byte {
	const last = len(sizes) - 1
	if n <= sizes[last-1] {
		return p.Lend(n)
	}
	if p.flows.Add(1) > maxFlows {
		p.flows.Add(-1)
		return p.lend(last - 1)
	}
	return p.lend(last)
}

func (p *Pool) lend(class int) *[]byte {
	p.count(1)
	if b, ok := p.free[class].Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, sizes[class])
	return &b
}

// Put takes back a buffer that was lent. The caller must not use it any more.
func (p *Pool) Put(b *[]byte) {
	p.count(-1)
	switch n := len(*b); n {
	case sizes[0]:
		p.free[0].Put(b)
	case sizes[1]:
		p.free[1].Put(b)
	case sizes[2]:
		p.free[2].Put(b)
		p.flows.Add(-1)
	}
}

// Shrink returns a buffer that begins with content, a part of b, if it is a
// smaller one: b is given back then. Else it returns b. So what a wait holds is
// no larger than it needs.
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
