package splice_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// combinations calls f for each combination over both networks.
func combinations(t *testing.T, f func(t *testing.T, e *splice.Engine, ca *certstest.CA, c combination)) {
	ca := certstest.NewCA(t)
	versions := []uint16{0, tls.VersionTLS12, tls.VersionTLS13}
	for _, networks := range [][2]string{{"tcp", "tcp"}, {"unix", "tcp"}, {"tcp", "unix"}} {
		for _, clientTLS := range versions {
			for _, upstreamTLS := range versions {
				c := combination{networks[0], networks[1], clientTLS, upstreamTLS}
				t.Run(c.String(), func(t *testing.T) {
					for _, kind := range kinds {
						t.Run(kind, func(t *testing.T) { f(t, engineOf(t, kind), ca, c) })
					}
				})
			}
		}
	}
}

func TestClientHalfCloses(t *testing.T) {
	combinations(t, func(t *testing.T, e *splice.Engine, ca *certstest.CA, c combination) {
		b := c.connect(t, e, ca, splice.Options{})
		b.client.Send(t, "question")
		if err := b.client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b.upstream.WantEnd(t, "question", clean)
		b.upstream.Send(t, "answer")
		b.client.Want(t, "answer")
		b.upstream.Send(t, ", and the end")
		b.upstream.CloseWrite()
		b.client.WantEnd(t, ", and the end", clean)
		b.wantCounts(t, len("question"), len("answer, and the end"))
	})
}

func TestUpstreamHalfCloses(t *testing.T) {
	combinations(t, func(t *testing.T, e *splice.Engine, ca *certstest.CA, c combination) {
		b := c.connect(t, e, ca, splice.Options{})
		b.upstream.Send(t, "hello")
		b.upstream.CloseWrite()
		b.client.WantEnd(t, "hello", clean)
		b.client.Send(t, "late ")
		b.upstream.Want(t, "late ")
		b.client.Send(t, "words")
		b.client.CloseWrite()
		b.upstream.WantEnd(t, "words", clean)
		b.wantCounts(t, len("late words"), len("hello"))
	})
}

// incomplete lists how a side may see an incomplete stream: never as a clean end.
// Unix-domain sockets have no reset, so tests leave them out.
var incomplete = []string{reset, truncated}

// A TLS stream that is cut off without close_notify is not forwarded as a clean end,
// though crypto/tls reports it as one at a record boundary.
func TestTruncatedStreamIsNotForwardedAsClean(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, other := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
			t.Run("client, "+combination{"tcp", "tcp", version, other}.String(), func(t *testing.T) {
				b := combination{"tcp", "tcp", version, other}.connect(t, engineOf(t, "loops"), ca, splice.Options{})
				b.client.Send(t, "part")
				b.upstream.Want(t, "part")
				b.client.Raw.Conn.(*net.TCPConn).CloseWrite() // a FIN without close_notify
				b.upstream.WantEnd(t, "", incomplete...)
			})
			t.Run("upstream, "+combination{"tcp", "tcp", other, version}.String(), func(t *testing.T) {
				b := combination{"tcp", "tcp", other, version}.connect(t, engineOf(t, "loops"), ca, splice.Options{})
				b.upstream.Send(t, "part")
				b.client.Want(t, "part")
				b.upstream.Raw.Conn.(*net.TCPConn).CloseWrite()
				b.client.WantEnd(t, "", incomplete...)
			})
		}
	}
}

// The same holds within a record.
func TestStreamTruncatedWithinARecord(t *testing.T) {
	ca := certstest.NewCA(t)
	b := combination{"tcp", "tcp", tls.VersionTLS13, 0}.connect(t, engineOf(t, "loops"), ca, splice.Options{})
	b.client.Send(t, "part")
	b.upstream.Want(t, "part")
	b.client.Raw.Conn.Write([]byte{23, 3, 3, 0, 100, 1, 2, 3})
	b.client.Raw.Conn.(*net.TCPConn).CloseWrite()
	b.upstream.WantEnd(t, "", reset)
}

func TestResetIsForwardedAsReset(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		c := combination{"tcp", "tcp", version, version}
		t.Run("from the client, "+c.String(), func(t *testing.T) {
			b := c.connect(t, engineOf(t, "loops"), ca, splice.Options{})
			b.client.Send(t, "x")
			b.upstream.Want(t, "x")
			b.client.Reset()
			b.upstream.WantEnd(t, "", reset)
		})
		t.Run("from the upstream, "+c.String(), func(t *testing.T) {
			b := c.connect(t, engineOf(t, "loops"), ca, splice.Options{})
			b.upstream.Send(t, "x")
			b.client.Want(t, "x")
			b.upstream.Reset()
			b.client.WantEnd(t, "", reset)
		})
		t.Run("after a half-close, "+c.String(), func(t *testing.T) {
			b := c.connect(t, engineOf(t, "loops"), ca, splice.Options{})
			b.client.Send(t, "x")
			b.client.CloseWrite()
			b.upstream.WantEnd(t, "x", clean)
			b.upstream.Reset()
			b.client.WantEnd(t, "", reset)
		})
	}
}

// The client receives the whole answer of an upstream that answers early and stops
// reading.
func TestAnswerOfAnUpstreamThatStopsReadingArrives(t *testing.T) {
	ca := certstest.NewCA(t)
	b := combination{"tcp", "tcp", 0, tls.VersionTLS13}.connect(t, engineOf(t, "loops"), ca, splice.Options{})
	b.upstream.Send(t, "too large")
	b.upstream.CloseWrite()
	b.client.WantEnd(t, "too large", clean)
	b.upstream.Reset()
	for { // the gate resets the client once the upstream has reset the gate
		if _, err := b.client.Write([]byte(strings.Repeat("x", 1000))); err != nil {
			break
		}
	}
	b.wait(t)
}

// Bytes that an upstream sends after it has stopped reading still arrive.
func TestUpstreamThatOnlyWrites(t *testing.T) {
	ca := certstest.NewCA(t)
	b := combination{"tcp", "unix", 0, 0}.connect(t, engineOf(t, "loops"), ca, splice.Options{})
	b.upstream.Raw.Conn.(*net.UnixConn).CloseRead()
	b.client.Send(t, "this is never read")
	for range 100 { // the write to the upstream has failed by then
		b.upstream.Send(t, "w")
		b.client.Want(t, "w")
	}
	b.upstream.CloseWrite()
	b.client.WantEnd(t, "", clean)
	b.wantCounts(t, 0, 100)
}

// The kernel reports a reset once. If a write gets the error, the reader sees what
// looks like a clean end, which must not be forwarded.
func TestResetDuringAWriteIsNotForwardedAsClean(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	for range 20 {
		b := combination{"tcp", "tcp", 0, 0}.connect(t, engineOf(t, "loops"), ca, splice.Options{})
		b.client.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		for chunk := make([]byte, 1<<20); ; { // writes until every buffer on the path is full
			if _, err := b.client.Write(chunk); err != nil {
				break
			}
		}
		b.upstream.Reset()
		b.client.WantEnd(t, "", reset)
	}
}

func TestLingerEndsASilentHalfClosedConnection(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			for linger := 80 * time.Millisecond; ; linger *= 4 {
				b := combination{"tcp", "tcp", version, version}.connect(t, engineOf(t, "loops"), ca, splice.Options{Linger: linger})
				b.client.Send(t, "bye")
				b.client.CloseWrite()
				got, how := b.upstream.ReadAll()
				// The upstream never ends its stream, so the client's stream is incomplete.
				b.client.WantEnd(t, "", reset)
				b.wantCounts(t, 3, 0)
				if how == reset && linger < 10*time.Second {
					continue // a busy machine stalled for that long before the upstream read the end
				}
				if string(got) != "bye" || how != clean {
					t.Errorf("the upstream got %q and a %s end", got, how)
				}
				return
			}
		})
	}
}

func TestIdleConnectionIsCut(t *testing.T) {
	ca := certstest.NewCA(t)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := combination{"tcp", "tcp", version, version}.connect(t, engineOf(t, "loops"), ca, splice.Options{Idle: 80 * time.Millisecond})
			b.client.WantEnd(t, "", reset)
			b.upstream.WantEnd(t, "", reset)
			b.wantCounts(t, 0, 0)
		})
	}
}

// A side that does not read is cut although the other direction is busy.
func TestStalledWriteIsCut(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := combination{"tcp", "tcp", version, version}.connect(t, engineOf(t, "loops"), ca, splice.Options{Idle: 250 * time.Millisecond})
			stalled := make(chan struct{})
			go func() { // the client does not read these bytes
				defer close(stalled)
				for chunk := make([]byte, 1<<16); ; {
					if _, err := b.upstream.Write(chunk); err != nil {
						return
					}
				}
			}()
			for { // the client keeps sending
				if _, err := b.client.Write([]byte("x")); err != nil {
					break
				}
				b.upstream.Read(make([]byte, 16))
			}
			<-stalled
		})
	}
}
