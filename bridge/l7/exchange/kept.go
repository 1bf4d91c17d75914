package exchange

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
)

// A keeper lends the buffers that keep request bodies for resending. It bounds
// their total size, so that many concurrent uploads cannot use up the memory.
//
// The zero value is ready to use by any number of goroutines.
type keeper struct {
	held atomic.Int64 // total size of the lent buffers
	most int64        // the bound of held; 0: maxKept
	free [len(keptSizes)]sync.Pool
}

// maxKept is the default bound on the total size of kept bodies.
const maxKept = 64 << 20

// keptSizes are the sizes of buffers: most bodies are far smaller than the bound. The large
// ones are the sizes of windows, so a buffer is not larger than the window that its
// content fills.
var keptSizes = [...]int{512, 1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 24 << 10, 32 << 10, 48 << 10, 64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20}

// grow returns a buffer with the contents of *b and room for n bytes in all. It takes
// ownership of b, which may be nil, but does not reuse it if inUse is set. If the bound is
// reached and forced is not set, it returns nil and b stays lent.
func (k *keeper) grow(b *[]byte, n int, forced, inUse bool) *[]byte {
	class, size := 0, 0
	for ; class < len(keptSizes) && keptSizes[class] < n; class++ {
	}
	if class < len(keptSizes) {
		size = keptSizes[class]
	} else {
		size = n + n/2
	}
	if k.held.Add(int64(size)) > cmp.Or(k.most, maxKept) && !forced {
		k.held.Add(-int64(size))
		return nil
	}
	var larger *[]byte
	if class < len(keptSizes) {
		larger, _ = k.free[class].Get().(*[]byte)
	}
	if larger == nil {
		p := make([]byte, 0, size)
		larger = &p
	}
	*larger = (*larger)[:0]
	if b != nil {
		*larger = append(*larger, *b...)
		if inUse {
			k.held.Add(-int64(cap(*b)))
		} else {
			k.put(b)
		}
	}
	return larger
}

// put returns a buffer to its pool.
func (k *keeper) put(b *[]byte) {
	n := cap(*b)
	k.held.Add(-int64(n))
	if class := slices.Index(keptSizes[:], n); class >= 0 {
		k.free[class].Put(b)
	}
}
