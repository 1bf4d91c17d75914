package guard

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// guarded returns a listener, and a channel of the accepted connections.
func guarded(t *testing.T, o Options) (*Listener, chan *Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := New(inner, o)
	conns := make(chan *Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c.(*Conn)
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l, conns
}

// refused checks that a connection from an address is refused.
func refused(t *testing.T, l *Listener, from string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", l.Addr().String())
	if errors.Is(err, syscall.ECONNRESET) {
		return // the listener closed the connection before Dial returned
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended(t, c)
}

// dial connects from an address of the loopback network.
func dial(t *testing.T, l *Listener, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// ended waits until the other side has closed the connection.
func ended(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

func TestTheOldestUnprovenConnectionIsEvicted(t *testing.T) {
	l, conns := guarded(t, Options{Connections: 3})
	first := dial(t, l, "127.0.0.1")
	proven := <-conns
	proven.SetProven(true)
	second := dial(t, l, "127.0.0.2")
	<-conns
	dial(t, l, "127.0.0.3")
	third := <-conns
	dial(t, l, "127.0.0.4")
	<-conns
	ended(t, second)
	third.SetProven(true)
	fourth := dial(t, l, "127.0.0.5") // evicts the previous connection
	last := <-conns
	last.SetProven(true)
	refused(t, l, "127.0.0.6") // all connections have proven themselves
	if l.Open() != 3 {
		t.Errorf("%d open", l.Open())
	}
	proven.SetProven(false)
	dial(t, l, "127.0.0.7")
	<-conns
	ended(t, first)
	last.Close()
	last.Close()
	ended(t, fourth)
	if l.Open() != 2 {
		t.Errorf("%d open after one was closed, twice", l.Open())
	}
}

// A write whose deadline has passed may leave a gap in the stream, so the connection
// sends no later write.
func TestNothingIsSentAfterAFailedWrite(t *testing.T) {
	l, conns := guarded(t, Options{Connections: 1})
	client := dial(t, l, "127.0.0.1")
	c := <-conns
	if _, err := c.Write([]byte("first")); err != nil {
		t.Fatal(err)
	}
	c.SetWriteDeadline(time.Unix(1, 0))
	if _, err := c.Write([]byte("second")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("err = %v", err)
	}
	c.SetWriteDeadline(time.Time{})
	if _, err := c.Write([]byte("third")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a later write: %v", err)
	}
	client.SetDeadline(time.Now().Add(time.Minute))
	if got, err := io.ReadAll(client); string(got) != "first" || err != nil {
		t.Errorf("the client read %q, %v", got, err)
	}
	if l.Open() != 0 {
		t.Errorf("%d open", l.Open())
	}
}

func TestConnectionsOfOneAddressAreLimited(t *testing.T) {
	l, conns := guarded(t, Options{Connections: 10, PerAddress: 2})
	dial(t, l, "127.0.0.1")
	dial(t, l, "127.0.0.1")
	one := <-conns
	<-conns
	refused(t, l, "127.0.0.1")
	dial(t, l, "127.0.0.2")
	<-conns
	one.Close()
	dial(t, l, "127.0.0.1")
	<-conns
	if l.Open() != 3 {
		t.Errorf("%d open", l.Open())
	}
}

func TestLimitsLeaveMostDescriptorsToTraffic(t *testing.T) {
	for descriptors, want := range map[int][2]int{0: {256, 64}, 64: {8, 4}, 1024: {32, 8}, 1 << 20: {256, 64}} {
		if n, each := Limits(descriptors); n != want[0] || each != want[1] {
			t.Errorf("of %d: %d and %d, want %v", descriptors, n, each, want)
		}
	}
}

func TestLimiterCountsSuppressedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(time.Minute)
		for i, want := range []bool{true, false, false} {
			if _, ok := l.Allow(); ok != want {
				t.Errorf("line %d: %v", i, ok)
			}
		}
		time.Sleep(time.Minute)
		if suppressed, ok := l.Allow(); !ok || suppressed != 2 {
			t.Errorf("a minute later: %d, %v", suppressed, ok)
		}
	})
}
