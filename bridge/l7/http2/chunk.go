package http2

import "sync"

const (
	smallChunk = 4 << 10
	largeChunk = maxFrame
	smallBody  = smallChunk // see ServerStream.Whole and stream.HasRoom
)

// A chunk is a buffer for part of a stream's unread body. It holds the payload
// of one DATA frame, or of several small ones.
type chunk struct {
	next *chunk
	buf  []byte // smallChunk or largeChunk bytes
	r, w int    // buf[r:w] is unread
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

// free returns the chunk to its pool. No view of it may be in use.
func (c *chunk) free() {
	c.next, c.r, c.w = nil, 0, 0
	if len(c.buf) == smallChunk {
		smallChunks.Put(c)
		return
	}
	largeChunks.Put(c)
}

// A queue holds the unread part of a stream's body.
type queue struct{ head, tail *chunk }

// room returns how many bytes fit in the last chunk.
func (q *queue) room() int {
	if q.tail == nil {
		return 0
	}
	return len(q.tail.buf) - q.tail.w
}

// add appends a copy of p. It fills the last chunk before it takes a new one,
// so that many small frames use no more memory than a few large ones.
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

// put appends a chunk and takes ownership of it. It copies the content into the
// last chunk if the content fits there, or is small.
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

// push appends a chunk and takes ownership of it.
func (q *queue) push(c *chunk) {
	if q.tail == nil {
		q.head = c
	} else {
		q.tail.next = c
	}
	q.tail = c
}

// next returns the bytes at the head of the queue, or nil if it is empty. The
// view stays valid until the next call.
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

// freeRead frees the chunk at the head if all of it was read. Callers use it before an
// operation that may block, so that a stalled stream holds no empty buffer.
func (q *queue) freeRead() {
	if c := q.head; c != nil && c.r == c.w {
		if q.head = c.next; q.head == nil {
			q.tail = nil
		}
		c.free()
	}
}

// hasUnread reports whether the queue holds bytes that next has not returned.
func (q *queue) hasUnread() bool {
	for c := q.head; c != nil; c = c.next {
		if c.r < c.w {
			return true
		}
	}
	return false
}

// isSmall reports whether the queue is at most one chunk with at most smallBody
// bytes.
func (q *queue) isSmall() bool {
	return q.head == nil || q.head.next == nil && q.head.w-q.head.r <= smallBody
}

// drop discards the queue. Chunks that may have a view in use are left to the
// garbage collector.
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
