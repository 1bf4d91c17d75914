package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// protocols runs a test with each HTTP version toward the upstream.
func protocols(t *testing.T, f func(t *testing.T, w *testbed, p backs.Protocol)) {
	for p, name := range map[backs.Protocol]string{backs.HTTP1: "HTTP1", backs.HTTP2: "HTTP2", backs.Auto: "Auto"} {
		t.Run(name, func(t *testing.T) { f(t, newTestbed(t), p) })
	}
}

// A rotating gateway serves successive revisions of one upstream.
type rotating struct {
	*testbed
	protocol backs.Protocol
	upstream string // the upstream's address
	url      string // the gateway's URL
	table    atomic.Pointer[Table]
	tracker  *upstream.Tracker
	options  backs.Options
	back     *backs.Pools
}

func newRotating(w *testbed, p backs.Protocol, upstreamAddress string) *rotating {
	r := &rotating{testbed: w, protocol: p, upstream: upstreamAddress, tracker: upstream.NewTracker()}
	_, address := w.gateway(r.table.Load)
	r.url = "http://" + address
	return r
}

// revise puts a new revision of the upstream in force, as the gateway does.
func (r *rotating) revise(identity *certs.Certificate) {
	r.Helper()
	protos := map[backs.Protocol][]string{backs.Auto: {"h2", "http/1.1"}, backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[r.protocol]
	client := func(protos ...string) *certs.Client {
		c, err := certs.NewClient(certs.ClientOptions{
			Certificate: identity, Trust: []*certs.TrustBundle{r.ca.Trust(r)}, ServerName: "localhost", NextProtos: protos,
		})
		if err != nil {
			r.Fatal(err)
		}
		return c
	}
	o := r.options
	o.Protocol, o.TLS = r.protocol, true
	o.Upstream = upstream.New(upstream.Options{Name: "up", Tracker: r.tracker, Logger: r.logger(hclog.Warn), ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: r.upstream, Stream: client(), HTTP: client(protos...)},
	}})
	old := r.back
	r.back = r.newBack(o)
	r.table.Store(&Table{Default: to(r.back)})
	if old != nil {
		old.Retire()
	}
}

// traffic sends requests until it is stopped. Every request must get a
// response.
func (r *rotating) traffic(clients int) (stop func()) {
	var all sync.WaitGroup
	done := make(chan struct{})
	var answered atomic.Int64
	for range clients {
		browser := r.browser()
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				res, err := browser.Post(r.url, "text/plain", strings.NewReader("hello"))
				if err != nil {
					r.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 200 || err != nil || !strings.HasSuffix(string(b), ": hello") {
					r.Errorf("%d %q, %v: %s", res.StatusCode, b, err, r.log.String())
					return
				}
				answered.Add(1)
			}
		})
	}
	return func() {
		at := answered.Load()
		eventually(r, "requests are still served", func() bool { return answered.Load() > at+100 || r.Failed() })
		close(done)
		all.Wait()
	}
}

func (r *rotating) identity(name string) *certs.Certificate {
	return certstest.Certificate(r, r.ca.Client(r, name))
}

func TestRotationOfTheClientCertificateUnderTraffic(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		r := newRotating(w, p, w.server(echo, "h2", "http/1.1"))
		before, after := r.identity("before"), r.identity("after")
		r.revise(before)
		stop := r.traffic(4)
		eventually(t, "the old certificate is used", func() bool { return r.tracker.Counts()[before.Fingerprint()] > 0 })
		for i := range 6 {
			r.revise([]*certs.Certificate{after, before}[i%2])
			used := r.back.Upstream().Status
			eventually(t, "requests are still served", func() bool { return used()[0].Requests > 20 })
		}
		r.revise(after)
		for range 5 {
			if code, body := w.get(w.browser(), r.url); code != 200 || !strings.Contains(body, "by after:") {
				t.Errorf("after the rotation: %d %q", code, body)
			}
		}
		stop()
		eventually(t, "no connection uses the old certificate", func() bool {
			counts := r.tracker.Counts()
			return counts[before.Fingerprint()] == 0 && counts[after.Fingerprint()] > 0
		})
		eventually(t, "only the last revision has connections", func() bool {
			return r.back.Upstream().Status()[0].Open == uint64(r.tracker.Counts()[after.Fingerprint()])
		})
	})
}

func TestMaxAgeRetiresConnectionsUnderTraffic(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		r := newRotating(w, p, w.server(echo, "h2", "http/1.1"))
		r.options.MaxAge = 10 * time.Millisecond
		r.revise(r.identity("gateway"))
		stop := r.traffic(8)
		status := func() upstream.EndpointStatus { return r.back.Upstream().Status()[0] }
		eventually(t, "connections are replaced", func() bool { return status().Made >= 20 || t.Failed() })
		stop()
		// Idle connections close too, although the idle timeout is a minute.
		eventually(t, "old connections are closed", func() bool { return status().Open == 0 })
		if s := status(); len(s.Failures) != 0 {
			t.Errorf("failures: %v", s.Failures)
		}
	})
}

// A slow server reports the arrival of a request for /slow, and answers it when
// released.
type slow struct {
	begun   chan struct{}
	release chan struct{}
}

func newSlow() *slow { return &slow{make(chan struct{}, 10), make(chan struct{})} }

func (s *slow) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/slow" {
		s.begun <- struct{}{}
		select {
		case <-s.release:
		case <-r.Context().Done():
		}
	}
	fmt.Fprint(rw, r.RemoteAddr)
}

// begin sends a request for path in the background.
func (r *rotating) begin(path string) (answer chan string) {
	answer = make(chan string, 1)
	browser := r.browser()
	go func() {
		res, err := browser.Get(r.url + path)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		answer <- fmt.Sprint(res.StatusCode, " ", string(b))
	}()
	return answer
}

func TestDrainedConnectionsEndWithTheirRequests(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		server := newSlow()
		r := newRotating(w, p, w.server(server, "h2", "http/1.1"))
		identity := r.identity("gateway")
		r.revise(identity)
		_, idle := w.get(w.browser(), r.url)
		answer := r.begin("/slow")
		<-server.begun

		if n := r.tracker.Drain("0000", false, time.Hour); n != 0 {
			t.Errorf("drains %d connections of another certificate", n)
		}
		if n := r.tracker.Drain(identity.Fingerprint(), false, time.Hour); n != 1 {
			t.Errorf("drains %d connections", n)
		}
		_, young := w.get(w.browser(), r.url)
		if young == idle {
			t.Error("a drained connection took another request")
		}
		open := func() int { return r.tracker.Counts()[identity.Fingerprint()] }
		if n := open(); n != 2 {
			t.Errorf("%d connections, want the busy and the new one", n)
		}
		close(server.release)
		if got := <-answer; got != "200 "+idle {
			t.Errorf("the request in flight: %q, want its answer on %s", got, idle)
		}
		eventually(t, "the drained connection is closed", func() bool { return open() == 1 })
		if _, again := w.get(w.browser(), r.url); again != young {
			t.Error("the connection that was not drained is gone")
		}
		if n := r.tracker.Drain("", true, time.Hour); n != 1 {
			t.Errorf("drains %d idle connections", n)
		}
		eventually(t, "an idle connection is closed at once", func() bool { return open() == 0 })
	})
}

func TestDrainedConnectionsAreCutWhenThePeriodEnds(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		server := newSlow()
		r := newRotating(w, p, w.server(server, "h2", "http/1.1"))
		r.revise(r.identity("gateway"))
		answer := r.begin("/slow")
		<-server.begun
		if n := r.tracker.Drain("", true, 0); n != 1 {
			t.Errorf("drains %d connections", n)
		}
		if got := <-answer; got != "502 bad gateway\n" {
			t.Errorf("the request in flight: %q", got)
		}
		eventually(t, "the connection is closed", func() bool { return len(r.tracker.Counts()) == 0 })
	})
}

// An upgraded connection has no request for a drain to wait for, so it stays open until the
// period ends.
func TestDrainedUpgradesAreCutWhenThePeriodEnds(t *testing.T) {
	w := newTestbed(t)
	r := newRotating(w, backs.Auto, w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, c)
	}))
	r.revise(r.identity("gateway"))
	c := w.dial(strings.TrimPrefix(r.url, "http://"))
	c.send("GET / HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: echo")
	if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	roundTrip := func() error {
		fmt.Fprint(c, "x")
		_, err := io.ReadFull(c.r, make([]byte, 1))
		return err
	}
	r.tracker.Drain("", true, time.Hour)
	if err := roundTrip(); err != nil {
		t.Errorf("while it drains: %v", err)
	}
	r.tracker.Drain("", true, 0)
	if _, err := c.r.ReadByte(); err == nil {
		t.Error("the connection is still open")
	}
}

// The gateway announces to the upstream that no more requests come.
func TestRetiredHTTP2ConnectionsEndWithGoAway(t *testing.T) {
	w := newTestbed(t)
	frames := make(chan string, 100)
	r := newRotating(w, backs.HTTP2, w.raw(w.serverTLS("h2"), func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings()
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				frames <- err.Error()
				return
			}
			switch frame := frame.(type) {
			case *http2.HeadersFrame:
				_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true}) // :status 200
			case *http2.GoAwayFrame:
				frames <- fmt.Sprint("GOAWAY ", frame.LastStreamID, " ", frame.ErrCode)
			}
		}
	}))
	r.revise(r.identity("gateway"))
	if code, _ := w.get(w.browser(), r.url); code != 200 {
		t.Fatal(code)
	}
	r.tracker.Drain("", true, time.Hour)
	if got := <-frames; got != "GOAWAY 0 NO_ERROR" {
		t.Errorf("got %s", got)
	}
	if got := <-frames; got != "EOF" {
		t.Errorf("then %s", got)
	}
}

// A TLS session negotiated with one certificate never carries a request under
// another certificate.
func TestSessionsDoNotSurviveARotation(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		w := newTestbed(t)
		config := w.serverTLS("http/1.1")
		config.MaxVersion = version
		r := newRotating(w, backs.HTTP1, w.raw(config, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			state := c.(*tls.Conn).ConnectionState()
			body := fmt.Sprint(state.PeerCertificates[0].Subject.CommonName, " ", state.DidResume)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}))
		for _, name := range []string{"a", "b", "a"} {
			r.revise(r.identity(name))
			for i := range 3 {
				if _, body := w.get(w.browser(), r.url); body != fmt.Sprint(name, " ", i > 0) {
					t.Errorf("%s, request %d under %s: %s", tls.VersionName(version), i, name, body)
				}
			}
		}
		want := map[string]int{}
		eventually(t, "all connections are closed", func() bool { return maps.Equal(r.tracker.Counts(), want) })
	}
}
