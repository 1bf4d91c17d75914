package socket

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// connected returns both ends of a TCP connection.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if near, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// lookAfter runs look as if the peer had been silent for quiet, and reports whether the
// limit has expired.
func lookAfter(d *Direct, quiet time.Duration) bool {
	d.stall.mu.Lock()
	d.stall.since = time.Now().Add(-quiet)
	d.stall.mu.Unlock()
	d.look()
	d.stall.mu.Lock()
	defer d.stall.mu.Unlock()
	return d.stall.expired
}

// A peer that has made room is not stuck, even if the writer does not run for longer than
// the limit, as on a busy machine.
func TestADelayedWriterIsNotMistakenForAStuckPeer(t *testing.T) {
	near, _ := connected(t)
	d := NewDirect(near)
	d.LimitWait(time.Hour)
	d.wait() // like a write to a full socket
	defer d.waited(nil)
	for range 3 {
		if lookAfter(d, 2*time.Hour) {
			t.Fatal("expired although the socket is writable")
		}
	}
}

// A write waits as long as the peer makes progress, however little, and fails when the
// peer has accepted no bytes for the limit.
func TestWriteWaitsWhileThePeerMakesProgress(t *testing.T) {
	near, far := connected(t)
	d := NewDirect(near)
	d.LimitWait(time.Hour)
	result := make(chan error, 1)
	go func() {
		_, err := d.Write(make([]byte, 64<<20)) // more than the kernel's buffers hold
		result <- err
	}()
	for !d.IsWaiting() {
		time.Sleep(time.Millisecond)
	}
	if lookAfter(d, 2*time.Hour) || lookAfter(d, time.Minute) {
		t.Fatal("expired at the first look, before there was anything to compare")
	}
	for range 3 {
		// Read enough for the peer's kernel to open its window and acknowledge more. The
		// acknowledgment arrives later than the read returns. While the writer is between
		// its system call and its count, progress is too low: wait until it is steady.
		d.stall.mu.Lock()
		last := d.stall.lastProgress
		d.stall.mu.Unlock()
		if _, err := io.CopyN(io.Discard, far, 4<<20); err != nil {
			t.Fatal(err)
		}
		for steady, previous := 0, int64(-1); steady < 10; time.Sleep(time.Millisecond) {
			if now := d.progress(); now > last && now == previous {
				steady++
			} else {
				steady, previous = 0, now
			}
		}
		if lookAfter(d, 2*time.Hour) {
			t.Fatal("expired although the peer makes progress")
		}
	}
	for !lookAfter(d, 2*time.Hour) { // once the last acknowledgments have arrived
		time.Sleep(time.Millisecond)
	}
	if err := <-result; !errors.Is(err, ErrStuck) {
		t.Errorf("the write failed with %v", err)
	}
}
