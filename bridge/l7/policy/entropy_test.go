package policy

import (
	"bytes"
	"sync"
	"testing"
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
	if raceEnabled() {
		return // where a sync.Pool forgets at random
	}
	var p [24]byte
	if n := testing.AllocsPerRun(1000, func() { e.Read(p[:]) }); n > 0.1 {
		t.Errorf("%v allocations", n)
	}
}
