package l7

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// A replay is the body of a request that may be sent again. What has come of it
// is kept, up to a bound, until the response has begun. Each upload sends it from
// its beginning, and goes on with what comes then. What comes is sent before
// anybody waits for more: nothing is held up because it is kept.
//
// An upload that ends while it waits for the client leaves that to be seen by the
// next: what comes is kept for it. So there may be several, of which at most one
// waits for the client, and only the present one uses its back.
type replay struct {
	x     *exchange
	bound int // most bytes that are kept

	mu      sync.Mutex
	changed sync.Cond
	kept    []byte
	lent    *[]byte // of the pool, where kept begins; nil: it does not
	lost    bool    // more has come than is kept
	stopped bool    // nothing is to be kept any more
	ended   bool    // all of the body has come
	trailer message.Fields
	err     error // why the body is not whole; nil: it is, as far as one knows
	uploads int   // how many there were
	present int   // the number of the one that sends; 0: none does
	at      int   // how much of kept it has sent
	reading bool  // one reads from the client

	using  atomic.Bool // the present one uses its back; written under mu
	awaits atomic.Bool // the one that reads has to wait; likewise
}

func (x *exchange) newReplay() *replay {
	r := x.server.replays.get()
	r.x, r.bound = x, x.retry.maxBody()
	r.changed.L = &r.mu
	return r
}

// free gives back r, all of whose uploads have ended. It may be nil.
func (r *replay) free() {
	if r == nil {
		return
	}
	r.forget()
	s := r.x.server
	*r = replay{}
	s.replays.put(r)
}

// begin returns the number of a new upload, which is the present one. If there is
// to be no other it need not be on a goroutine of its own: all of the body is
// here, and little.
func (r *replay) begin() (number int, little bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uploads++
	r.present, r.at = r.uploads, 0
	return r.present, r.ended && len(r.kept) <= maxInline
}

// halt ends the present upload, for the body is to be sent again. It reports
// false, and the upload goes on, if that cannot be.
func (r *replay) halt() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost || r.err != nil {
		return false
	}
	r.present = 0
	r.changed.Broadcast()
	return true
}

// leave ends the present upload, whose back was aborted, and waits until it uses
// the back no more.
func (r *replay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present = 0
	r.changed.Broadcast()
	for r.using.Load() {
		r.changed.Wait()
	}
}

// whole reports whether the body can be sent from its beginning.
func (r *replay) whole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.lost && r.err == nil
}

// stop keeps nothing any more, but what the present upload has yet to send.
func (r *replay) stop() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	r.tidy()
}

// tidy forgets what is kept, if nobody needs it. r.mu is held.
func (r *replay) tidy() {
	if r.stopped && !r.using.Load() && r.at == len(r.kept) {
		r.lost = true
		r.forget()
	}
}

// forget drops what is kept, of which nothing is being sent. r.mu is held.
func (r *replay) forget() {
	if r.lent != nil {
		r.x.server.buffers.Put(r.lent)
	}
	r.kept, r.lent, r.at = nil, nil, 0
}

// patient reports whether it is the client that is waited for, and not the
// upstream.
func (r *replay) patient() bool { return r != nil && r.awaits.Load() && !r.using.Load() }

// use lets f use the back of an upload, if that is the present one. r.mu is held,
// but not while f runs.
func (r *replay) use(number int, f func()) {
	if r.present != number {
		return
	}
	r.using.Store(true)
	r.mu.Unlock()
	f()
	r.mu.Lock()
	r.using.Store(false)
	r.changed.Broadcast()
	r.tidy()
}

// upload is an upload of a number: it carries the body to b.
func (r *replay) upload(b back, number int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.present == number {
		p := r.kept[r.at:]
		switch {
		case len(p) > 0:
			r.at = len(r.kept)
		case r.ended:
			r.use(number, func() {
				if b.End(r.trailer) == nil {
					r.x.sent.Store(true)
				}
			})
			return
		case r.err != nil:
			return
		case r.reading:
			r.use(number, func() { _ = b.Flush() }) // what it fails with, reading from b tells
			if r.reading && r.present == number {
				r.changed.Wait()
			}
			continue
		default:
			if p = r.read(b, number); p == nil {
				continue
			}
		}
		ok := false
		r.use(number, func() { ok = b.Write(p) == nil })
		if !ok {
			return // the upstream takes no more; reading from b tells why
		}
	}
}

// read waits for more of the body, and keeps it. It returns what an upload of a
// number, to b, has to send of it at once; nil: nothing. All that was kept before
// is sent. r.mu is held, but not while it waits.
func (r *replay) read(b back, number int) []byte {
	x := r.x
	r.reading = true
	r.mu.Unlock()
	here := x.front.Buffered()
	r.mu.Lock()
	if !here {
		r.use(number, func() { _ = b.Flush() })
		r.awaits.Store(true)
	}
	r.mu.Unlock()
	p, err := x.front.Read()
	r.mu.Lock()
	r.reading = false
	r.awaits.Store(false)
	r.changed.Broadcast()
	switch {
	case err == io.EOF:
		r.ended, r.trailer = true, x.protected.CleanTrailer(x.front.Trailer())
		x.read.Store(true)
		x.restartTry()
		return nil
	case err == nil && x.tooLong(len(p)):
		err = errBodyTooLarge
	}
	if err != nil {
		r.err = err
		if !x.over.Load() { // else the rest was refused
			x.fail(&bodyError{err})
		}
		return nil
	}
	x.touched.Store(true)
	if r.present != number { // be it more than the bound: it is for the next
		r.keep(p)
		return nil
	}
	if !r.stopped && !r.lost && len(r.kept)+len(p) <= r.bound {
		r.keep(p)
		r.at = len(r.kept)
		return p
	}
	r.lost = true
	r.forget()
	return p
}

// keep keeps bytes. r.mu is held.
func (r *replay) keep(p []byte) {
	if r.kept == nil && len(p) <= socket.BufferSize {
		r.lent = r.x.server.buffers.Get()
		r.kept = (*r.lent)[:0]
	}
	r.kept = append(r.kept, p...)
}
