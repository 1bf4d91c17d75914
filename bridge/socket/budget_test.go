package socket

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestABudgetBoundsWhatIsLent(t *testing.T) {
	var p Pool
	var lent atomic.Int64
	p.Count(&lent)
	var b Budget
	const limit = 1 << 20
	b.SetLimit(limit)
	var mu sync.Mutex
	sum := 0
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			l := NewLender(&p)
			l.Charge(&b, nil)
			buf := l.Read(bulkSize)
			mu.Lock()
			defer mu.Unlock()
			if sum += len(*buf); len(*buf) > bulkSize+slack || len(*buf) < sizes[0] {
				t.Errorf("a buffer of %d bytes", len(*buf))
			}
			l.Put(l.Shrink(buf, (*buf)[:1]))
			sum -= len(*buf)
			l.Limit(0)
			small := l.Read(bulkSize)
			sum += len(*small)
			if len(*small) != sizes[0] {
				t.Errorf("a buffer of %d bytes beyond a limit of 0", len(*small))
			}
		})
	}
	all.Wait()
	if sum != 100*sizes[0] || b.Held() != sum || lent.Load() != 100 {
		t.Errorf("%d bytes in %d buffers, %d charged", sum, lent.Load(), b.Held())
	}
}

func TestABudgetIsSharedByAllThatAreLent(t *testing.T) {
	var p Pool
	var b Budget
	b.SetLimit(100 << 10)
	last := 0
	for i := range 100 {
		l := NewLender(&p)
		l.Charge(&b, nil)
		if n := len(*l.Read(bulkSize)); i > 0 && n > last {
			t.Errorf("buffer %d has %d bytes, the one before %d", i, n, last)
		} else {
			last = n
		}
	}
	if last != sizes[0] || b.Held() > 200<<10 {
		t.Errorf("the last buffer has %d bytes, and %d are held", last, b.Held())
	}
}

// A buffer on loan moves to the budget that its Lender is charged to.
func TestACharge(t *testing.T) {
	var p Pool
	var one, two Budget
	one.SetLimit(100)
	l := NewLender(&p)
	buf := l.Lend(3000)
	if len(*buf) != BufferSize {
		t.Errorf("a buffer of %d bytes without a budget", len(*buf))
	}
	l.Charge(&one, buf)
	if buf = l.Shrink(buf, (*buf)[:3000]); len(*buf) != 4<<10 || one.Held() != 4<<10 {
		t.Errorf("%d bytes of %d", one.Held(), len(*buf))
	}
	l.Charge(&two, buf)
	if one.Held() != 0 || two.Held() != len(*buf) {
		t.Errorf("%d and %d bytes", one.Held(), two.Held())
	}
	l.Charge(nil, buf)
	l.Put(buf)
	if two.Held() != 0 {
		t.Errorf("%d bytes", two.Held())
	}
}
