package splice

import "sync"

// bufferSizes are the sizes of pooled buffers: from a few small records to the
// records of the largest read.
var bufferSizes = [...]int{4 << 10, 32 << 10, chunk + chunk/4}

// buffers is a pool of buffers in a few sizes.
type buffers struct {
	free [len(bufferSizes)]sync.Pool
}

// get returns a buffer of at least n bytes. Buffers beyond the largest size are
// allocated and never pooled.
func (b *buffers) get(n int) *[]byte {
	for i, size := range bufferSizes {
		if n <= size {
			if p, ok := b.free[i].Get().(*[]byte); ok {
				return p
			}
			p := make([]byte, size)
			return &p
		}
	}
	p := make([]byte, n)
	return &p
}

func (b *buffers) put(p *[]byte) {
	for i, size := range bufferSizes {
		if len(*p) == size {
			b.free[i].Put(p)
		}
	}
}

// A backlog holds the bytes queued for a side. An empty backlog has no buffer.
type backlog struct {
	buf        *[]byte
	start, end int
}

func (q *backlog) empty() bool   { return q.start == q.end }
func (q *backlog) len() int      { return q.end - q.start }
func (q *backlog) bytes() []byte { return (*q.buf)[q.start:q.end] }

// add appends p.
func (q *backlog) add(from *buffers, p []byte) {
	if len(p) == 0 {
		return
	}
	if q.buf == nil {
		q.buf = from.get(len(p))
	} else if q.end+len(p) > len(*q.buf) {
		n := q.len()
		larger := from.get(n + len(p))
		copy(*larger, q.bytes())
		from.put(q.buf)
		q.buf, q.start, q.end = larger, 0, n
	}
	q.end += copy((*q.buf)[q.end:], p)
}

// drop removes the first n bytes, which were sent.
func (q *backlog) drop(to *buffers, n int) {
	q.start += n
	if q.empty() {
		q.release(to)
	}
}

// release discards the backlog.
func (q *backlog) release(to *buffers) {
	if q.buf != nil {
		to.put(q.buf)
	}
	*q = backlog{}
}
