package socket

import "sync/atomic"

// A Budget bounds the buffers that hold bytes on their way to one client. The zero Budget
// has no room: each buffer that is charged to it has the smallest size.
//
// Its methods may be called by any goroutine. The methods of a nil *Budget do nothing.
type Budget struct {
	limit atomic.Int64
	held  atomic.Int64
}

// SetLimit sets how many bytes the buffers may have. Buffers of the smallest size may
// exceed it.
func (b *Budget) SetLimit(n int) { b.limit.Store(int64(n)) }

// Held returns how many bytes the buffers have.
func (b *Budget) Held() int { return int(b.held.Load()) }

// take charges a buffer and returns its size, one of the sizes of a Pool's buffers: the
// smallest with room for want bytes, or a smaller one if that would be more than most, or
// more than the budget has left.
func (b *Budget) take(want, most int) int {
	for {
		held := b.held.Load()
		n := sizeFor(want, max(min(most, int(b.limit.Load()-held)), sizes[0]))
		if b.held.CompareAndSwap(held, held+int64(n)) {
			return n
		}
	}
}

// add charges a buffer of n bytes, even if it exceeds the limit.
func (b *Budget) add(n int) {
	if b != nil {
		b.held.Add(int64(n))
	}
}

// give returns what a buffer of n bytes was charged.
func (b *Budget) give(n int) {
	if b != nil {
		b.held.Add(-int64(n))
	}
}

// sizeFor returns the size of the smallest buffer with room for want bytes, or the largest
// size that does not exceed most.
func sizeFor(want, most int) int {
	n := sizes[0]
	for _, size := range sizes[1:] {
		if n >= want || size > most {
			break
		}
		n = size
	}
	return n
}

// A Lender lends the buffers of a Pool, charged to a Budget if it has one. One goroutine at a
// time uses it.
type Lender struct {
	pool   *Pool
	budget *Budget
	most   int // bounds what Read lends
}

// NewLender returns a Lender without a budget.
func NewLender(p *Pool) Lender { return Lender{pool: p} }

// Charge charges the buffers on loan and those that are lent from now on to b, and to no
// budget if b is nil.
func (l *Lender) Charge(b *Budget, onLoan *[]byte) {
	if onLoan != nil {
		b.add(len(*onLoan))
		l.budget.give(len(*onLoan))
	}
	l.budget, l.most = b, sizes[bulk]
}

// Limit bounds the buffers that Read lends from now on to n bytes or the smallest size,
// if the Lender has a budget.
func (l *Lender) Limit(n int) { l.most = min(n, sizes[bulk]) }

// Read lends a buffer for up to n bytes, which the caller must return before it waits.
// Without a budget it is like Pool.LendLarge.
func (l *Lender) Read(n int) *[]byte {
	if l.budget == nil {
		return l.pool.LendLarge(n)
	}
	return l.lend(l.budget.take(n, l.most))
}

// Lend lends a buffer of at least n bytes.
func (l *Lender) Lend(n int) *[]byte {
	if l.budget == nil {
		return l.pool.Lend(n)
	}
	size := max(sizeFor(n, sizes[bulk]), n)
	l.budget.add(size)
	return l.lend(size)
}

// lend lends a buffer of a size that was charged.
func (l *Lender) lend(size int) *[]byte {
	for class := range flow {
		if sizes[class] == size {
			return l.pool.lend(class)
		}
	}
	return l.pool.make(size)
}

// Put returns a buffer.
func (l *Lender) Put(b *[]byte) {
	n := len(*b)
	l.pool.Put(b)
	l.budget.give(n)
}

// Shrink is like Pool.Shrink. With a budget, no buffer is too small to become smaller.
func (l *Lender) Shrink(b *[]byte, content []byte) *[]byte {
	if l.budget == nil {
		return l.pool.Shrink(b, content)
	}
	if sizeFor(len(content), len(*b)) >= len(*b) {
		return b
	}
	smaller := l.Lend(len(content))
	copy(*smaller, content)
	l.Put(b)
	return smaller
}

// Charge charges the buffers that s holds, now and later, to b; nil means no budget. It may
// be called only after Stream, by the reading goroutine.
func Charge(s *Socket, b *Budget) { s.in.pool.Charge(b, s.in.buf) }

// LimitReads bounds the next reads of s to n bytes or the smallest buffer, if there is a
// budget. It may be called only after Stream, by the reading goroutine.
func LimitReads(s *Socket, n int) { s.in.pool.Limit(n) }
