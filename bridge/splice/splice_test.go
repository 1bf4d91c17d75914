package splice_test

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engines calls f for an Engine of each kind: with loops, with one loop, and with
// goroutines as on systems without epoll.
func engines(t *testing.T, f func(t *testing.T, e *splice.Engine)) {
	for name, e := range map[string]*splice.Engine{"loops": newEngine(t, 2), "one loop": newEngine(t, 1), "goroutines": splice.NewWaiting()} {
		t.Run(name, func(t *testing.T) {
			f(t, e)
			if !t.Failed() { // otherwise a splice may not have ended
				e.Close()
			}
		})
	}
}

func newEngine(t testing.TB, loops int) *splice.Engine {
	e, err := splice.New(loops)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A pair is the two ends of a connection.
type pair struct {
	near *socket.Socket // the splice's end
	far  net.Conn       // the test's end
}

func connect(t testing.TB, network string) pair {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return pair{socket.New(near, nil), far}
}

// secure completes a TLS handshake over a pair. The near end is the client.
func (p pair) secure(t testing.TB, ca *certstest.CA, version uint16) (near, far *tls.Conn) {
	t.Helper()
	far = tls.Server(p.far, &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "x.test"))}, MaxVersion: version})
	near = tls.Client(p.near, &tls.Config{ServerName: "x.test", RootCAs: ca.Pool(), DynamicRecordSizingDisabled: true})
	handshakes := make(chan error, 1)
	go func() { handshakes <- far.Handshake() }()
	if err := errors.Join(near.Handshake(), <-handshakes); err != nil {
		t.Fatal(err)
	}
	return near, far
}

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// start starts a splice and returns a channel for its result.
func start(e *splice.Engine, client, upstream net.Conn, o splice.Options) (*splice.Splice, chan splice.Result) {
	results := make(chan splice.Result, 2)
	o.Idle, o.Linger = time.Hour, cmp.Or(o.Linger, time.Hour)
	o.Done = func(r splice.Result) { results <- r }
	return e.Start(client, upstream, o), results
}

func wait(t *testing.T, results chan splice.Result) splice.Result {
	t.Helper()
	select {
	case r := <-results:
		return r
	case <-time.After(time.Minute):
		t.Fatal("the splice does not end")
		return splice.Result{}
	}
}

// Large transfers in both directions at once arrive and are counted, and both
// half-closes are forwarded.
func TestBytesAndHalfClosesArrive(t *testing.T) {
	ca := certstest.NewCA(t)
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18) // 4 MiB
	for name, c := range map[string]struct {
		network string
		version uint16 // TLS version of the upstream; 0: plaintext
	}{
		"plain": {"tcp", 0}, "unix": {"unix", 0}, "TLS 1.2": {"tcp", tls.VersionTLS12}, "TLS 1.3": {"tcp", tls.VersionTLS13},
		"TLS 1.3 over unix": {"unix", tls.VersionTLS13},
	} {
		t.Run(name, func(t *testing.T) {
			engines(t, func(t *testing.T, e *splice.Engine) {
				client, upstream := connect(t, "tcp"), connect(t, c.network)
				var back net.Conn = upstream.near
				ends := [2]halfCloser{client.far.(halfCloser), nil}
				if c.version == 0 {
					ends[1] = upstream.far.(halfCloser)
				} else {
					near, far := upstream.secure(t, ca, c.version)
					back, ends[1] = near, far
				}
				var up, down atomic.Uint64
				replies := make(chan struct{}, 2)
				_, results := start(e, client.near, back, splice.Options{
					ToUpstream: &up, ToClient: &down, FirstReply: func() { replies <- struct{}{} },
				})
				var both sync.WaitGroup
				for _, end := range ends {
					both.Go(func() {
						if _, err := end.Write(sent); err != nil {
							t.Error(err)
						}
						if err := end.CloseWrite(); err != nil {
							t.Error(err)
						}
					})
					both.Go(func() {
						if got, err := io.ReadAll(end); err != nil || !bytes.Equal(got, sent) {
							t.Errorf("got %d bytes and %v", len(got), err)
						}
					})
				}
				both.Wait()
				n := uint64(len(sent))
				r := wait(t, results)
				if r.Ending != splice.Closed || r.Cause != nil || r.ToUpstream != n || r.ToClient != n || up.Load() != n || down.Load() != n {
					t.Errorf("%+v, counted %d and %d", r, up.Load(), down.Load())
				}
				if len(replies) != 1 {
					t.Errorf("FirstReply was called %d times", len(replies))
				}
			})
		})
	}
}

// Bytes received before the splice started are delivered first.
func TestEarlyBytesAreDelivered(t *testing.T) {
	engines(t, func(t *testing.T, e *splice.Engine) {
		client, upstream := connect(t, "tcp"), connect(t, "tcp")
		client.near.Stream(new(socket.Pool))
		client.far.Write([]byte("early, "))
		if err := client.near.Fill(); err != nil {
			t.Fatal(err)
		}
		client.far.Write([]byte("and late"))
		client.far.(halfCloser).CloseWrite()
		_, results := start(e, client.near, upstream.near, splice.Options{})
		if got, err := io.ReadAll(upstream.far); string(got) != "early, and late" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		upstream.far.Close()
		wait(t, results)
	})
}

func TestCut(t *testing.T) {
	engines(t, func(t *testing.T, e *splice.Engine) {
		closed := make(chan struct{}, 4)
		client, upstream := connect(t, "tcp"), connect(t, "tcp")
		for _, p := range []pair{client, upstream} {
			p.near.OnClose(func() { closed <- struct{}{} })
		}
		s, results := start(e, client.near, upstream.near, splice.Options{})
		cause := errors.New("because")
		s.Cut(splice.Shutdown, cause)
		s.Cut(splice.Idle, nil)
		if len(closed) != 2 {
			t.Errorf("%d sides are closed", len(closed))
		}
		if r := wait(t, results); r.Ending != splice.Shutdown || r.Cause != cause {
			t.Errorf("%+v", r)
		}
		for _, far := range []net.Conn{client.far, upstream.far} {
			if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("a side sees %v", err)
			}
		}
		if len(results) > 0 || len(closed) != 2 {
			t.Error("Done was called twice")
		}
	})
}

// Closing a Socket ends its splice, even before Start.
func TestClosedSocketIsDrained(t *testing.T) {
	engines(t, func(t *testing.T, e *splice.Engine) {
		for _, before := range []bool{false, true} {
			for _, which := range []int{0, 1} {
				pairs := []pair{connect(t, "tcp"), connect(t, "tcp")}
				if before {
					pairs[which].near.Reset()
				}
				_, results := start(e, pairs[0].near, pairs[1].near, splice.Options{})
				if !before {
					pairs[which].near.Reset()
				}
				if r := wait(t, results); r.Ending != splice.Drained {
					t.Errorf("closed before %v, side %d: %+v", before, which, r)
				}
				if _, err := pairs[1-which].far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("the other side sees %v", err)
				}
			}
		}
	})
}

func TestBytesSentBeforeTheStartArrive(t *testing.T) {
	engines(t, func(t *testing.T, e *splice.Engine) {
		client, upstream := connect(t, "tcp"), connect(t, "tcp")
		client.far.Write([]byte("x"))
		client.far.(halfCloser).CloseWrite()
		upstream.far.(halfCloser).CloseWrite()
		results := make(chan splice.Result, 1)
		e.Start(client.near, upstream.near, splice.Options{Idle: time.Hour, Linger: time.Hour, Done: func(r splice.Result) { results <- r }})
		if r := <-results; r.Ending != splice.Closed || r.ToUpstream != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// Urgent data ends a read before later bytes.
func TestUrgentDataDoesNotDelayLaterBytes(t *testing.T) {
	engines(t, func(t *testing.T, e *splice.Engine) {
		client, upstream := connect(t, "tcp"), connect(t, "tcp")
		raw, err := client.far.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		client.far.Write([]byte("before"))
		raw.Control(func(fd uintptr) { err = syscall.Sendto(int(fd), []byte("!"), syscall.MSG_OOB, nil) })
		if err != nil {
			t.Fatal(err)
		}
		client.far.Write([]byte("after"))
		_, results := start(e, client.near, upstream.near, splice.Options{})
		got := make([]byte, len("beforeafter"))
		if n, err := io.ReadFull(upstream.far, got); err != nil {
			t.Errorf("got %q, %v", got[:n], err)
		}
		client.far.Close()
		upstream.far.Close()
		wait(t, results)
	})
}

// Splices start and end while others are cut. A splice never uses a descriptor after
// another one owns it.
func TestManySplicesAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, e *splice.Engine) {
		var all sync.WaitGroup
		for worker := range 8 {
			all.Go(func() {
				for round := range 20 {
					client, upstream := connect(t, "tcp"), connect(t, "tcp")
					s, results := start(e, client.near, upstream.near, splice.Options{})
					text := []byte{byte(worker), byte(round)}
					got := make([]byte, 2)
					client.far.Write(text)
					if _, err := io.ReadFull(upstream.far, got); err != nil || !bytes.Equal(got, text) {
						t.Errorf("got %v, %v, want %v", got, err, text)
					}
					switch round % 3 {
					case 0:
						s.Cut(splice.Shutdown, nil)
					case 1:
						client.far.Close()
						upstream.far.Close()
					default:
						go upstream.near.Reset()
					}
					<-results
					client.far.Close()
					upstream.far.Close()
				}
			})
		}
		all.Wait()
	})
}
