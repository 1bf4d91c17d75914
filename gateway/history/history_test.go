package history

import (
	"errors"
	"slices"
	"sync"
	"testing"
)

func add(l *Log[int64], n int) {
	for range n {
		l.Append(func(p int64) (int64, int) { return p, 10 })
	}
}

func TestAReaderFollowsFromItsPosition(t *testing.T) {
	l := New[int64](100, 1<<20, 7)
	if before, last := l.Bounds(); before != 7 || last != 7 {
		t.Errorf("bounds %d, %d", before, last)
	}
	add(l, 3)
	for position, want := range map[int64][]int64{7: {8, 9, 10}, 8: {9, 10}, 10: nil, 99: nil} {
		values, changed, err := l.After(position)
		if err != nil || !slices.Equal(values, want) || (changed == nil) != (len(want) > 0) {
			t.Errorf("after %d: %v, %v", position, values, err)
		}
	}
	if _, _, err := l.After(6); !errors.Is(err, ErrBehind) {
		t.Errorf("before the beginning: %v", err)
	}
}

func TestTheOldestIsDroppedByCountAndBySize(t *testing.T) {
	for name, l := range map[string]*Log[int64]{"count": New[int64](5, 1<<20, 0), "size": New[int64](100, 50, 0)} {
		add(l, 8)
		if before, last := l.Bounds(); before != 3 || last != 8 {
			t.Errorf("%s: bounds %d, %d", name, before, last)
		}
		if _, _, err := l.After(2); !errors.Is(err, ErrBehind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	huge := New[int64](100, 5, 0) // the last value is kept, even if it is too large
	add(huge, 2)
	if values, _, err := huge.After(1); err != nil || len(values) != 1 {
		t.Errorf("%v, %v", values, err)
	}
}

func TestReadersSeeEveryValueAndTheEnd(t *testing.T) {
	const values, readers = 500, 8
	l := New[int64](values, 1<<20, 0)
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			at := int64(0)
			for {
				got, changed, err := l.After(at)
				if errors.Is(err, ErrClosed) {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				for _, v := range got {
					if v != at+1 {
						t.Errorf("%d follows %d", v, at)
					}
					at = v
				}
				if changed != nil {
					<-changed
				}
			}
			if at != values {
				t.Errorf("a reader has seen %d values", at)
			}
		})
	}
	add(l, values)
	l.Close()
	l.Close()
	reading.Wait()
	add(l, 1) // a closed log does not keep the value
	if _, last := l.Bounds(); last != values {
		t.Errorf("last %d", last)
	}
	<-l.Changed()
}

func TestARestartMakesReadersStartOver(t *testing.T) {
	l := New[int64](100, 1<<20, 0)
	add(l, 3)
	_, changed, err := l.After(3)
	if err != nil {
		t.Fatal(err)
	}
	l.Restart(10)
	<-changed
	for _, position := range []int64{2, 3} {
		if _, _, err := l.After(position); !errors.Is(err, ErrBehind) {
			t.Errorf("after %d: %v", position, err)
		}
	}
	add(l, 1)
	if values, _, err := l.After(10); err != nil || !slices.Equal(values, []int64{11}) {
		t.Errorf("%v, %v", values, err)
	}
	l.Close()
	l.Restart(20)
	if _, _, err := l.After(11); !errors.Is(err, ErrClosed) {
		t.Errorf("restarted after its end: %v", err)
	}
}
