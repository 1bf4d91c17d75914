package exchange

import (
	"io"
	"sync"
	"sync/atomic"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A replay is the body of a request that may be sent again, because the request
// has a retry policy or because an HTTP/2 upstream may report that it has not
// processed the request. The replay keeps the part that has arrived, up to a
// bound, until the response begins. Each upload sends the body from its
// beginning, and then sends further bytes as they arrive, so keeping the body
// delays nothing.
//
// When a part exceeds the bound, the replay drops the kept bytes only after that
// part was sent. While the upload waits for the upstream's window to open, the
// body can still be sent again.
//
// An upload that ends while it waits for the client passes the wait to the next
// upload, and keeps the part that arrives for it. So several uploads may exist, but
// at most one waits for the client, and only the present one uses its back.
type replay struct {
	x     *Exchange
	bound int // maximum number of kept bytes

	mu         sync.Mutex
	changed    sync.Cond
	kept       *[]byte // lent by the keeper; nil: no bytes are kept
	incomplete bool    // bytes were sent that are not kept
	stopped    bool    // no more bytes are kept
	ended      bool    // all of the body has arrived
	trailer    message.Fields
	err        error // why the body is incomplete, or nil
	uploads    int   // number of uploads so far
	present    int   // the number of the upload that sends, or 0
	at         int   // how much of kept the present upload has sent
	reading    bool  // an upload reads from the client

	blocked bool // the present upload waits for room, without a goroutine; using is set too

	using  atomic.Bool // the present upload uses its back; written with mu held
	awaits atomic.Bool // the upload that reads has to wait; written with mu held
}

// maxResent bounds the bytes kept of a body without a retry policy.
const maxResent = 64 << 10

// newReplay returns a replay for the exchange's request.
func (u *upload) newReplay() *replay {
	r, ok := u.x.shared.replays.Get().(*replay)
	if !ok {
		r = new(replay)
	}
	r.x, r.bound = u.x, maxResent
	if retry := u.x.try.retry; retry != nil {
		r.bound = retry.maxBody()
	}
	r.changed.L = &r.mu
	return r
}

// free returns r, whose uploads have all ended, to its pool. r may be nil.
func (r *replay) free() {
	if r == nil {
		return
	}
	r.forget()
	s := r.x.shared
	*r = replay{}
	s.replays.Put(r)
}

// begin returns the number of a new upload, which becomes the present upload.
// isSmall reports that the whole body has arrived and is small, so that the upload
// needs no goroutine of its own.
func (r *replay) begin() (number int, isSmall bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.uploads++
	r.present, r.at = r.uploads, 0
	return r.present, r.ended && len(r.content()) <= maxInline
}

// pause ends the present upload so that the body can be sent again. It reports
// false if the body cannot be sent again; then the upload continues.
func (r *replay) pause() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.incomplete || r.err != nil {
		return false
	}
	r.present = 0
	r.changed.Broadcast()
	return true
}

// leave ends the present upload, whose back was aborted, and waits until the upload
// no longer uses the back.
func (r *replay) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present = 0
	r.changed.Broadcast()
	for r.using.Load() {
		r.changed.Wait()
	}
}

// whole reports whether the body can still be sent from its beginning.
func (r *replay) whole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.incomplete && r.err == nil
}

// stop drops the kept bytes and keeps no more, except for bytes that the present
// upload still has to send.
func (r *replay) stop() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	r.dropUnneeded()
}

// dropUnneeded drops the kept bytes once no upload needs them. r.mu is held.
func (r *replay) dropUnneeded() {
	if r.stopped && !r.using.Load() && r.at == len(r.content()) {
		r.discard()
	}
}

// discard stops keeping the body. r.mu is held.
func (r *replay) discard() {
	r.incomplete = true
	r.forget()
}

// forget drops the kept bytes. No upload may be sending them. r.mu is held.
func (r *replay) forget() {
	if r.kept != nil {
		r.x.shared.keeper.put(r.kept)
		if f, ok := r.x.front.(retainer); ok {
			f.Release()
		}
	}
	r.kept, r.at = nil, 0
}

// content returns the kept bytes. r.mu is held.
func (r *replay) content() []byte {
	if r.kept == nil {
		return nil
	}
	return *r.kept
}

// waitsForClient reports whether the exchange waits for the client, and not for the upstream.
func (r *replay) waitsForClient() bool { return r != nil && r.awaits.Load() && !r.using.Load() }

// use calls f, which uses the back of an upload, if the upload is the present
// one. r.mu is held, but not while f runs.
func (r *replay) use(number int, f func()) {
	if r.present != number {
		return
	}
	r.using.Store(true)
	r.mu.Unlock()
	defer func() { // even after a panic: the caller unlocks r.mu
		r.mu.Lock()
		r.unuse()
	}()
	f()
}

// unuse records that no upload uses its back. r.mu is held.
func (r *replay) unuse() {
	r.using.Store(false)
	r.changed.Broadcast()
	r.dropUnneeded()
}

// isBlocked reports whether the present upload waits for room.
func (r *replay) isBlocked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blocked
}

// fromClient reads more of the body from the client. r.mu is held, except while it
// reads.
func (r *replay) fromClient() ([]byte, error) {
	r.mu.Unlock()
	defer r.mu.Lock() // even after a panic
	return r.x.front.Read()
}

// buffered reports whether fromClient can return without waiting. r.mu is held,
// except during the check.
func (r *replay) buffered() bool {
	r.mu.Unlock()
	defer r.mu.Lock()
	return r.x.front.Buffered()
}

// isExhausted reports whether the client can send nothing more while its bytes are kept.
// r.mu is held.
func (r *replay) isExhausted() bool {
	f, ok := r.x.front.(retainer)
	return ok && f.Exhausted()
}

// fail ends the body with err, and ends every wait for the body.
func (r *replay) fail(err error) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = false
	if r.err == nil {
		r.err = err
	}
	r.changed.Broadcast()
}

// An uploadState says how replay.upload left the body.
type uploadState int

const (
	uploadEnded   uploadState = iota // the upload has nothing left to do
	uploadRest                       // the caller must carry the rest, without keeping it
	uploadWaits                      // the caller must wait for the client, and then resume the upload
	uploadBlocked                    // resumeBlocked continues the upload
)

// upload carries the body to b, as the upload with the given number. afterClient means
// that the client can be read now; afterRoom, that b accepts more.
func (r *replay) upload(b message.Back, number int, from beginning) uploadState {
	r.mu.Lock()
	defer r.mu.Unlock()
	if from == afterRoom {
		k := r.x.upload.blocked
		r.x.upload.blocked, r.blocked = blockedUpload{}, false
		if k.unkept != nil {
			if state, done := r.send(b, number, k.rest, k.unkept); done {
				return state
			}
		}
		r.unuse()
	}
	for resumed := from == afterClient; r.present == number || resumed; {
		var p, unkept []byte
		if !resumed {
			p = r.content()[r.at:]
		}
		switch {
		case resumed:
			resumed = false
			if p, unkept = r.read(number); p == nil {
				continue
			}
		case len(p) > 0:
		case r.ended:
			if r.block(blockedUpload{back: b, number: number, end: true}) {
				return uploadBlocked
			}
			r.use(number, func() { r.x.upload.end(b, r.trailer) })
			return uploadEnded
		case r.err != nil:
			return uploadEnded
		case r.stopped && !r.reading:
			r.discard()
			return uploadRest
		case r.reading:
			if r.flush(b, number) {
				return uploadBlocked
			}
			if r.reading && r.present == number {
				r.changed.Wait()
			}
			continue
		default:
			if r.isExhausted() { // the upstream takes responsibility when it has room for more
				if r.block(blockedUpload{back: b, number: number}) {
					return uploadBlocked
				}
				failed := true
				r.use(number, func() { _, err := tryWrite(b, nil); failed = err != nil })
				if failed {
					return uploadEnded
				}
				r.discard()
				return uploadRest
			}
			r.reading = true
			if !r.buffered() {
				if r.flush(b, number) {
					r.reading = false
					r.changed.Broadcast()
					return uploadBlocked
				}
				r.awaits.Store(true)
				return uploadWaits
			}
			if p, unkept = r.read(number); p == nil {
				continue
			}
		}
		if state, done := r.send(b, number, p, unkept); done {
			return state
		}
	}
	return uploadEnded
}

// send sends p to b, as the upload with the given number. p is the unsent rest of the
// kept bytes, or of unkept, a part that is not kept. done reports that the upload has
// ended or is blocked. r.mu is held, but not while p is written.
func (r *replay) send(b message.Back, number int, p, unkept []byte) (state uploadState, done bool) {
	var err error
	for len(p) > 0 && err == nil && r.present == number {
		at, sent := r.at, 0
		r.use(number, func() {
			var rest []byte
			rest, err = tryWrite(b, p)
			sent = len(p) - len(rest)
		})
		p = p[sent:]
		if unkept == nil && r.present == number {
			r.at = at + sent
			r.dropUnneeded()
		}
		if len(p) > 0 && err == nil && r.present == number && r.block(blockedUpload{back: b, number: number, rest: p, unkept: unkept}) {
			return uploadBlocked, true
		}
	}
	if unkept != nil {
		r.written(unkept, len(p) == 0 && err == nil && r.present == number)
	}
	if err == nil {
		return uploadEnded, false
	}
	if r.present == number {
		r.x.upload.giveUp(err)
	}
	return uploadEnded, true // the upstream accepts no more; reading from b shows why
}

// flush sends what b holds, as the upload with the given number. It reports true if the
// upload is blocked. r.mu is held, but not while b is flushed.
func (r *replay) flush(b message.Back, number int) (blocked bool) {
	for r.present == number {
		done := true
		r.use(number, func() {
			if ok, err := tryFlush(b); err == nil { // reading from b returns the error
				done = ok
			}
		})
		if done {
			break
		}
		if r.present == number && r.block(blockedUpload{back: b, number: number}) {
			return true
		}
	}
	return false
}

// block is upload.block, for the present upload. r.mu is held.
func (r *replay) block(k blockedUpload) bool {
	r.blocked = true
	r.using.Store(true) // the upload uses its back, and the bytes that it has not sent yet
	if r.x.upload.block(k) {
		return true
	}
	r.blocked = false
	r.unuse()
	return false
}

// setReading records whether an upload waits for the client.
func (r *replay) setReading(reading bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = reading
	r.awaits.Store(reading)
	if !reading {
		r.changed.Broadcast()
	}
}

// written is called for a part that was sent without being kept. taken says
// that the upstream received the part. r.mu is held.
func (r *replay) written(p []byte, taken bool) {
	switch {
	case r.incomplete:
	case taken: // the present upload sent it, so the kept bytes are not in use
		r.discard()
	default: // the next upload sends the body from its beginning
		r.keep(p, true)
	}
}

// read waits for more of the body. It returns the part that the upload with the given
// number has to send at once, or nil. unkept is the same part if it is not kept. All kept
// bytes have been sent before the call, and r.reading is set. r.mu is held, except while
// read waits.
func (r *replay) read(number int) (p, unkept []byte) {
	x := r.x
	p, err := r.fromClient()
	r.reading = false
	r.awaits.Store(false)
	r.changed.Broadcast()
	switch {
	case err == io.EOF:
		r.ended, r.trailer = true, x.Rules.Protected.CleanTrailer(x.front.Trailer())
		x.upload.read.Store(true)
		x.deadlines.restartTry()
		return nil, nil
	case err == nil && x.upload.exceeds(len(p)):
		err = errBodyTooLarge
	}
	if err != nil {
		r.err = err
		if !x.upload.refused.Load() { // else the rest was refused
			x.cancel.fail(&bodyError{err})
		}
		return nil, nil
	}
	x.upload.touched.Store(true)
	if r.present != number { // even above the bound, for the next upload
		r.keep(p, true)
		return nil, nil
	}
	if !r.stopped && !r.incomplete && len(r.content())+len(p) <= r.bound && r.keep(p, false) {
		return r.content()[r.at:], nil // p may be invalid
	}
	return p, p
}

// keep keeps p, which the front has returned, unless all bodies together already hold
// too much. It reports whether it kept p; then p is invalid. With forced it always keeps
// p. r.mu is held.
func (r *replay) keep(p []byte, forced bool) bool {
	f, retains := r.x.front.(retainer)
	// Without a policy, the upstream soon takes responsibility for a whole window.
	if retains && !forced && !f.MayRetain(r.x.try.retry == nil) {
		return false
	}
	n := len(r.content()) + len(p)
	if r.kept == nil || n > cap(*r.kept) {
		// The present upload may be sending the kept bytes while an earlier one
		// reads.
		b := r.x.shared.keeper.grow(r.kept, n, forced, r.using.Load())
		if b == nil {
			return false
		}
		r.kept = b
	}
	*r.kept = append(*r.kept, p...)
	if retains {
		f.Retain()
	}
	return true
}
