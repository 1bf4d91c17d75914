package socket

import (
	"sync/atomic"
	"testing"
)

// Buffers of all sizes are counted.
func TestLentBuffersAreCounted(t *testing.T) {
	var p Pool
	var n atomic.Int64
	p.Count(&n)
	small, bulk := p.Get(), p.LendLarge(bulkSize)
	if len(*small) != BufferSize || len(*bulk) < bulkSize || n.Load() != 2 {
		t.Errorf("%d and %d bytes, %d lent", len(*small), len(*bulk), n.Load())
	}
	p.Put(bulk)
	p.Put(small)
	if n.Load() != 0 {
		t.Errorf("%d are lent", n.Load())
	}
}
