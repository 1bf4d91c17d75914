package splice_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

var allVersions = []uint16{0, tls.VersionTLS12, tls.VersionTLS13}

// An ending is a splice that is about to end. Its sender sends to its receiver.
type ending struct {
	sender, receiver net.Conn
	raw              *net.TCPConn // the connection beneath the sender
	down             bool         // the sender is the upstream
	delivered        *atomic.Uint64
	results          chan splice.Result
}

// endings calls f for each direction, version of the receiver's TLS (0: plaintext) and
// kind of Engine. If secure, the sender speaks TLS.
func endings(t *testing.T, secure bool, linger time.Duration, versions []uint16, f func(t *testing.T, e *ending)) {
	ca := certstest.NewCA(t)
	for _, down := range []bool{false, true} {
		for _, version := range versions {
			t.Run(fmt.Sprintf("from the upstream %v, to %s", down, tls.VersionName(version)), func(t *testing.T) {
				engines(t, func(t *testing.T, engine *splice.Engine) {
					from, to := connect(t, "tcp"), connect(t, "tcp")
					x := &ending{sender: from.far, receiver: to.far, raw: from.far.(*net.TCPConn), down: down, delivered: new(atomic.Uint64)}
					var fromNear, toNear net.Conn = from.near, to.near
					if secure {
						fromNear, x.sender = from.secure(t, ca, tls.VersionTLS13)
					}
					if version != 0 {
						toNear, x.receiver = to.secure(t, ca, version)
					}
					o := splice.Options{ToUpstream: x.delivered, Linger: linger}
					if down {
						fromNear, toNear = toNear, fromNear
						o.ToUpstream, o.ToClient = nil, x.delivered
					}
					_, x.results = start(engine, fromNear, toNear, o)
					f(t, x)
				})
			})
		}
	}
}

// called returns the Ending for the sender's side: client or upstream.
func (x *ending) called(client, upstream splice.Ending) splice.Ending {
	if x.down {
		return upstream
	}
	return client
}

// wantBrokenOff reads to the end, and expects all of want and then a reset.
func (x *ending) wantBrokenOff(t *testing.T, want []byte) {
	t.Helper()
	got, err := io.ReadAll(x.receiver)
	if !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stream ends with %v, want a reset", err)
	}
}

// Bytes before a TLS stream was truncated arrive, and the stream does not look
// complete.
func TestBytesBeforeATruncationAreDelivered(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18) // 4 MiB
	endings(t, true, time.Hour, allVersions, func(t *testing.T, x *ending) {
		go func() {
			x.sender.Write(sent)
			x.raw.CloseWrite()
		}()
		x.wantBrokenOff(t, sent)
		want := x.called(splice.ClientTruncated, splice.UpstreamTruncated)
		if r := wait(t, x.results); r.Ending != want || max(r.ToUpstream, r.ToClient) != uint64(len(sent)) {
			t.Errorf("%+v, want %q", r, want)
		}
	})
}

// Bytes before a reset arrive too.
func TestBytesBeforeAResetAreDelivered(t *testing.T) {
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<14) // 256 KiB
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			endings(t, secure, time.Hour, allVersions, func(t *testing.T, x *ending) {
				if _, err := x.sender.Write(sent); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the gateway has received all bytes", func() bool { return x.delivered.Load() == uint64(len(sent)) })
				x.raw.SetLinger(0)
				x.raw.Close()
				x.wantBrokenOff(t, sent)
				want := x.called(splice.ClientReset, splice.UpstreamReset)
				if r := wait(t, x.results); r.Ending != want {
					t.Errorf("%+v, want %q", r, want)
				}
			})
		})
	}
}

// The splice does not wait forever for a peer that does not read.
func TestUndeliveredBytesAreDroppedAfterLinger(t *testing.T) {
	sent := make([]byte, 256<<10)
	endings(t, true, 100*time.Millisecond, []uint16{0}, func(t *testing.T, x *ending) {
		if _, err := x.sender.Write(sent); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the gateway has received all bytes", func() bool { return x.delivered.Load() == uint64(len(sent)) })
		x.raw.CloseWrite()
		if r := wait(t, x.results); r.Ending != x.called(splice.ClientTruncated, splice.UpstreamTruncated) {
			t.Errorf("%+v", r)
		}
		if _, err := io.Copy(io.Discard, x.receiver); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the stream ends with %v, want a reset", err)
		}
	})
}

// An upstream that answers early, ends its stream and then resets does not keep its
// answer from a client that is still sending.
func TestAnEarlyAnswerIsDelivered(t *testing.T) {
	ca := certstest.NewCA(t)
	answer := bytes.Repeat([]byte("too large\n"), 1<<15)
	engines(t, func(t *testing.T, e *splice.Engine) {
		client, upstream := connect(t, "tcp"), connect(t, "tcp")
		raw := upstream.far.(*net.TCPConn)
		near, far := upstream.secure(t, ca, tls.VersionTLS13)
		var delivered atomic.Uint64
		_, results := start(e, client.near, near, splice.Options{ToClient: &delivered})
		client.far.Write([]byte("some"))
		if _, err := io.ReadFull(far, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		client.far.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		for chunk := make([]byte, 1<<20); ; { // writes until every buffer on the path is full
			if _, err := client.far.Write(chunk); err != nil {
				break
			}
		}
		if _, err := far.Write(answer); err != nil {
			t.Fatal(err)
		}
		far.CloseWrite()
		eventually(t, "the gateway has received all bytes", func() bool { return delivered.Load() == uint64(len(answer)) })
		raw.Close() // closing with bytes unread sends a reset
		got, err := io.ReadAll(client.far)
		if !bytes.Equal(got, answer) {
			t.Errorf("got %d bytes of %d, then %v", len(got), len(answer), err)
		}
		// If the kernel has accepted all that the client sent, the splice learns of the
		// reset only with the client's next bytes.
		client.far.Close()
		wait(t, results)
	})
}

// With many splices, all bytes arrive, and each truncation is visible.
func TestManyTruncatedStreamsAtOnce(t *testing.T) {
	ca := certstest.NewCA(t)
	sent := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18)
	engines(t, func(t *testing.T, e *splice.Engine) {
		var all sync.WaitGroup
		for range 14 { // several splices for each kind of Engine
			client, upstream := connect(t, "tcp"), connect(t, "tcp")
			raw := upstream.far.(*net.TCPConn)
			near, far := upstream.secure(t, ca, tls.VersionTLS13)
			_, results := start(e, client.near, near, splice.Options{})
			all.Go(func() {
				far.Write(sent)
				raw.Close()
			})
			all.Go(func() {
				got, err := io.ReadAll(client.far)
				if !bytes.Equal(got, sent) || !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("got %d bytes of %d, then %v", len(got), len(sent), err)
				}
				client.far.Close()
				wait(t, results)
			})
		}
		all.Wait()
	})
}

// eventually polls a condition until it holds.
func eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	splicetest.Eventually(t, condition, ok)
}

// A side that ends its stream and later resets its connection is noticed although the
// other side is silent.
func TestAResetAfterAHalfCloseIsNoticed(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %v", secure), func(t *testing.T) {
			endings(t, secure, time.Hour, []uint16{0}, func(t *testing.T, x *ending) {
				if _, err := io.WriteString(x.sender, "bye"); err != nil {
					t.Fatal(err)
				}
				if err := x.sender.(halfCloser).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if got, err := io.ReadAll(x.receiver); string(got) != "bye" || err != nil {
					t.Fatalf("%q, %v", got, err)
				}
				x.raw.SetLinger(0)
				x.raw.Close()
				want := x.called(splice.ClientReset, splice.UpstreamReset)
				if r := wait(t, x.results); r.Ending != want {
					t.Errorf("%+v, want %q", r, want)
				}
			})
		})
	}
}
