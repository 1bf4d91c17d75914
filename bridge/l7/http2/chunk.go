package http2

import "sync"

const (
	smallChunk = 4 << 10
	largeChunk = maxFrame
	little     = smallChunk // of a body, that is sent on without much ado
)

// A chunk is memory for a stream's body that waits to be read: that of one
// frame, or of several that fit.
type chunk struct {
	next *chunk
	buf  []byte // of one of the two sizes
	r, w int    // buf[r:w] waits
}

var smallChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, smallChunk)} }}
var largeChunks = sync.Pool{New: func() any { return &chunk{buf: make([]byte, largeChunk)} }}

// newChunk returns an empty chunk for n bytes, at most largeChunk.
func newChunk(n int) *chunk {
	if n <= smallChunk {
		return smallChunks.Get().(*chunk)
	}
	return largeChunks.Get().(*chunk)
}

// free gives the chunk back. Nobody may have a view of it any more.
func (c *chunk) free() {
	c.next, c.r, c.w = nil, 0, 0
	if len(c.buf) == smallChunk {
		smallChunks.Put(c)
		return
	}
	largeChunks.Put(c)
}

// A queue is a stream's body that waits to be read.
type queue struct{ head, tail *chunk }

// room returns how many bytes fit behind the last of the queue.
func (q *queue) room() int {
	if q.tail == nil {
		return 0
	}
	return len(q.tail.buf) - q.tail.w
}

// add appends a copy of p. It fills the last chunk before it takes another, so
// that many small frames hold no more than a few large ones.
func (q *queue) add(p []byte) {
	for {
		if q.tail != nil {
			n := copy(q.tail.buf[q.tail.w:], p)
			q.tail.w += n
			p = p[n:]
		}
		if len(p) == 0 {
			return
		}
		q.push(newChunk(len(p)))
	}
}

// put appends a chunk, which is the queue's from then on. What is in it goes into
// the last chunk if it fits, or if it is small.
func (q *queue) put(c *chunk) {
	if c.w > smallChunk && c.w > q.room() {
		q.push(c)
		return
	}
	if q.tail == nil {
		q.push(c)
		return
	}
	q.add(c.buf[:c.w])
	c.free()
}

// push appends a chunk, which is the queue's from then on.
func (q *queue) push(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// next returns what is at the head, nil if the queue is empty. It stays where
// it is until the next call, so that the view stays good.
func (q *queue) next() []byte {
	for q.head != nil {
		c := q.head
		if c.r < c.w {
			view := c.buf[c.r:c.w:c.w]
			c.r = c.w
			return view
		}
		if q.head = c.next; q.head == nil {
			q.tail = nil
		}
		c.free()
	}
	return nil
}

// waiting reports whether next would return something.
func (q *queue) waiting() bool {
	for c := q.head; c != nil; c = c.next {
		if c.r < c.w {
			return true
		}
	}
	return false
}

// little reports whether all that waits is in one chunk, and no more than that.
func (q *queue) little() bool {
	return q.head == nil || q.head.next == nil && q.head.w-q.head.r <= little
}

// drop forgets what waits. Chunks of which somebody may have a view are left to
// the collector.
func (q *queue) drop() {
	for c := q.head; c != nil; {
		next := c.next
		if c.r == 0 {
			c.free()
		}
		c = next
	}
	q.head, q.tail = nil, nil
}
