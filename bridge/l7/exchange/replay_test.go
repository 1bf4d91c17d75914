package exchange

import "testing"

func TestKeptBodyIsDroppedWhenTheResponseBegins(t *testing.T) {
	var s Shared
	x := newExchange(t, &s, nil)
	x.try.retry = &Retry{}
	r := x.upload.newReplay()
	r.keep([]byte("hello"), false)
	if r.stop(); r.kept == nil {
		t.Error("bytes still to be sent were dropped")
	}
	r.at = len(r.content())
	if r.stop(); r.kept != nil || r.whole() || s.Kept() != 0 {
		t.Errorf("%d bytes are kept", len(r.content()))
	}
}

// The kept bytes move to a larger buffer while an upload sends them. Meanwhile
// the keeper does not lend the smaller buffer to another user.
func TestABufferInUseIsNotLentAgain(t *testing.T) {
	var s Shared
	x := newExchange(t, &s, nil)
	r := x.upload.newReplay()
	r.keep([]byte("hello"), false)
	first, _ := r.begin()
	sent := r.content()
	r.mu.Lock()
	r.use(first, func() {
		r.mu.Lock()
		r.keep(make([]byte, 5000), true)
		r.mu.Unlock()
		other := x.upload.newReplay()
		other.keep([]byte("other"), false)
		if string(sent) != "hello" {
			t.Errorf("the bytes being sent became %q", sent)
		}
		other.free()
	})
	r.mu.Unlock()
	if r.free(); s.Kept() != 0 {
		t.Errorf("%d bytes are held", s.Kept())
	}
}
