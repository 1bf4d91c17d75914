package socket

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// A write waits for as long as its peer takes something, however little, and fails
// when the peer has taken nothing for as long as it may.
func TestAWriteWaitsForAsLongAsThePeerTakesSomething(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	d := NewDirect(near)
	d.LimitWait(time.Hour)
	result := make(chan error, 1)
	go func() {
		_, err := d.Write(make([]byte, 64<<20)) // more than the kernel holds
		result <- err
	}()
	for !d.Waits() {
		time.Sleep(time.Millisecond)
	}
	// lookAfter looks as if nothing had been seen for a time, and reports whether the
	// limit has passed.
	lookAfter := func(quiet time.Duration) bool {
		d.patience.mu.Lock()
		d.patience.since = time.Now().Add(-quiet)
		d.patience.mu.Unlock()
		d.look()
		d.patience.mu.Lock()
		defer d.patience.mu.Unlock()
		return d.patience.passed
	}
	if lookAfter(2*time.Hour) || lookAfter(time.Minute) {
		t.Fatal("the first look has nothing to compare with")
	}
	for range 3 {
		// As much as makes the peer's kernel open its window, and acknowledge more.
		if _, err := io.CopyN(io.Discard, far, 4<<20); err != nil {
			t.Fatal(err)
		}
		for before := d.progress(); d.progress() == before && !d.Waits(); {
			time.Sleep(time.Millisecond)
		}
		if lookAfter(2 * time.Hour) {
			t.Fatal("a peer that takes something is stuck")
		}
	}
	for !lookAfter(2 * time.Hour) { // once what was under way has come to rest
		time.Sleep(time.Millisecond)
	}
	if err := <-result; !errors.Is(err, ErrStuck) {
		t.Errorf("the write failed with %v", err)
	}
}
