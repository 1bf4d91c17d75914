package admin

import "sync"

// inFlight counts the calls in progress. The zero value is ready to use.
type inFlight struct {
	mu   sync.Mutex
	n    int
	all  uint64        // calls that have begun
	idle chan struct{} // closed when n falls to 0; nil: no waiter
}

func (f *inFlight) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
	f.all++
}

// begun returns how many calls have begun.
func (f *inFlight) begun() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}

func (f *inFlight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
}

// whenIdle returns a channel that is closed once no call is in progress.
func (f *inFlight) whenIdle() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle == nil {
		f.idle = make(chan struct{})
	}
	c := f.idle
	if f.n == 0 {
		close(f.idle)
		f.idle = nil
	}
	return c
}
