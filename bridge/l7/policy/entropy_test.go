package policy

import (
	"bytes"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

func TestEntropyRepeatsNothing(t *testing.T) {
	var e Entropy
	var mu sync.Mutex
	seen := map[[16]byte]bool{}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				var p [16]byte
				e.Read(p[:])
				mu.Lock()
				if seen[p] || bytes.Equal(p[:], make([]byte, 16)) {
					t.Errorf("%x again", p)
				}
				seen[p] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
}

func TestEntropyAllocatesNothing(t *testing.T) {
	var e Entropy
	var p [24]byte
	alloctest.Want(t, "Read", 0.1, func() { e.Read(p[:]) })
}
