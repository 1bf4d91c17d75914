package l7

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// upstream2 starts an HTTP/2 upstream whose streams are served by f.
func (w *testbed) upstream2(f func(*http2.ServerStream)) (address string) {
	return w.raw(w.serverTLS("h2"), func(c net.Conn) {
		if c.(*tls.Conn).Handshake() == nil {
			_ = http2.NewServerConn(c, nil, http2.Options{}).Serve(f)
		}
	})
}

// dial2 connects to a gateway with HTTP/2.
func (w *testbed) dial2(address string) *http2.ClientConn {
	w.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		w.Fatal(err)
	}
	c := http2.NewClientConn(nc, http2.Options{})
	ended := make(chan struct{})
	go func() { defer close(ended); _ = c.Run() }()
	w.Cleanup(func() { c.Close(); <-ended })
	return c
}

// rest reads a body to its end, and returns it with a description of the end.
func rest(s interface{ Read() ([]byte, error) }) string {
	var body []byte
	for {
		p, err := s.Read()
		body = append(body, p...)
		var e *http2.Error
		switch {
		case err == nil:
		case err == io.EOF:
			return string(body) + " end"
		case errors.As(err, &e) && e.Remote:
			return string(body) + " " + e.Code.String()
		default:
			return string(body) + " " + err.Error()
		}
	}
}

// A stream that carries bytes both ways through the gateway ends correctly, for
// every order and kind of end. In each row, the client sends "ping", the
// upstream answers "pong", and the client can still send.
func TestStreamsEndCorrectlyInEveryOrderThroughTheGateway(t *testing.T) {
	status := message.Fields{{Name: "grpc-status", Value: "5"}}
	for _, c := range []struct {
		name     string
		upstream func(s *http2.ServerStream) // the next step of the upstream; nil: it keeps reading
		client   func(s *http2.ClientStream) // the client's step after that, or nil
		// The bytes that the client reads, its trailer, and the bytes that the
		// upstream reads.
		reads, trailer, upstreamReads string
	}{
		{name: "the upstream responds with a trailer", upstream: func(s *http2.ServerStream) { _ = s.Write([]byte("bye")); _ = s.End(status) }, reads: "bye end", trailer: "5"},
		{name: "the upstream responds without a trailer", upstream: func(s *http2.ServerStream) { _ = s.Write([]byte("bye")); _ = s.End(nil) }, reads: "bye end"},
		{name: "the upstream fails", upstream: func(s *http2.ServerStream) { s.Abort(io.ErrClosedPipe) }, reads: " INTERNAL_ERROR"},
		{name: "the upstream cancels", upstream: func(s *http2.ServerStream) { s.Abort(net.ErrClosed) }, reads: " INTERNAL_ERROR"},
		{name: "the upstream announces the end and does not end the stream", upstream: func(*http2.ServerStream) {}, reads: " INTERNAL_ERROR"},
		{name: "the client half-closes", client: func(s *http2.ClientStream) { _ = s.End(message.Fields{{Name: "x", Value: "y"}}) },
			reads: "bye end", trailer: "5", upstreamReads: " end"},
		{name: "the client sends more and half-closes", client: func(s *http2.ClientStream) { _ = s.Write([]byte("more")); _ = s.End(nil) },
			reads: "bye end", trailer: "5", upstreamReads: "more end"},
		{name: "the client cancels", client: func(s *http2.ClientStream) { s.Abort(io.ErrClosedPipe) },
			reads: " io: read/write on closed pipe", upstreamReads: " CANCEL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			ponged, upstreamRead := make(chan struct{}), make(chan string, 1)
			_, address := w.plain(w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
				if p, err := s.Read(); string(p) != "ping" || err != nil {
					t.Errorf("the upstream got %q, %v", p, err)
				}
				_ = s.Respond(&message.Response{Status: 200, Length: -1, Declared: -1}, false)
				_ = s.Write([]byte("pong"))
				_ = s.Flush()
				<-ponged
				if c.upstream != nil {
					c.upstream(s)
					return
				}
				upstreamRead <- rest(s)
				_ = s.Write([]byte("bye"))
				_ = s.End(status)
			})))
			client := w.dial2(address)
			s := client.Open()
			if err := s.Send(&message.Request{Method: "POST", Scheme: "http", Authority: "a.test", Target: "/", Length: -1, Trailers: true,
				Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}}}, false); err != nil {
				t.Fatal(err)
			}
			_ = s.Write([]byte("ping"))
			_ = s.Flush()
			var head message.Response
			if err := s.Receive(&head); err != nil || head.Status != 200 {
				t.Fatalf("%+v %v", head, err)
			}
			if p, err := s.Read(); string(p) != "pong" || err != nil {
				t.Fatalf("%q %v", p, err)
			}
			close(ponged)
			if c.client != nil {
				c.client(s)
			}
			if got := rest(s); got != c.reads {
				t.Errorf("the client read %q", got)
			}
			if got, _ := s.Trailer().Get("grpc-status"); got != c.trailer {
				t.Errorf("the trailer had %q", got)
			}
			if c.upstreamReads != "" {
				select {
				case got := <-upstreamRead:
					if got != c.upstreamReads {
						t.Errorf("the upstream read %q", got)
					}
				case <-time.After(testTimeout):
					t.Error("the upstream is not notified of the end")
				}
			}
			s.Done()
		})
	}
}

// If the reader of a stream stalls, the gateway buffers a bounded part of the
// stream, and other streams of the same connections make progress.
func TestBuffersAreBoundedWhileAReaderStalls(t *testing.T) {
	const most = 4 << 20
	w := newTestbed(t)
	sent, served := make(chan int, 1), make(chan struct{})
	_, address := w.plain(w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
		if s.Request().Target != "/stall" {
			_ = s.Respond(&message.Response{Status: 204}, true)
			return
		}
		_ = s.Respond(&message.Response{Status: 200, Length: -1}, false)
		n := 0
		stuck := time.AfterFunc(time.Second, func() { <-served; s.Abort(io.ErrNoProgress) })
		for p := make([]byte, 16<<10); s.Write(p) == nil && n < 2*most; n += len(p) {
			stuck.Reset(time.Second)
		}
		stuck.Stop()
		sent <- n
	})))
	client := w.dial2(address)
	s := client.Open()
	defer s.Done()
	if err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a.test", Target: "/stall"}, true); err != nil {
		t.Fatal(err)
	}
	var head message.Response
	if err := s.Receive(&head); err != nil {
		t.Fatal(err)
	}
	other := client.Open()
	if err := other.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a.test", Target: "/"}, true); err != nil {
		t.Fatal(err)
	}
	if err := other.Receive(&head); err != nil || head.Status != 204 {
		t.Errorf("%+v %v", head, err)
	}
	other.Done()
	close(served)
	if n := <-sent; n >= most {
		t.Errorf("the upstream sent %d bytes that the client did not read", n)
	}
}

// An HTTP/2 client that stops sending a body gets an error. A client that converses
// with the upstream may be silent, and a gRPC client may be silent from the
// beginning: both of these start to wait before the client that is cut off.
func TestASlowBodyOverHTTP2HoldsNoUpstream(t *testing.T) {
	withGrowingLimit(t, 50*time.Millisecond, func(limit time.Duration) bool { return slowBodyIsCutOff(t, limit) })
}

func slowBodyIsCutOff(t *testing.T, limit time.Duration) (inTime bool) {
	w := newTestbed(t)
	read := make(chan string, 3)
	_, address := w.gateway(fixed(&Table{IdleTimeout: limit, Default: to(w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
		got, head := "", &message.Response{Status: 200, Length: -1}
		switch s.Request().Target {
		case "/slow":
			read <- rest(s)
			return
		case "/conversation":
			_ = s.Respond(head, false)
			_ = s.Flush()
			got = rest(s)
		default:
			got = rest(s)
			_ = s.Respond(head, false)
		}
		_ = s.Write([]byte(got))
		_ = s.End(nil)
	})))}))
	client := w.dial2(address)
	open := func(target, kind string) *http2.ClientStream {
		s := client.Open()
		// An error means that the connection was idle for too long; the response reports it.
		_ = s.Send(&message.Request{Method: "POST", Scheme: "http", Authority: "a.test", Target: target, Length: -1,
			Fields: message.Fields{{Name: "content-type", Value: kind}}}, false)
		_ = s.Write([]byte("so far"))
		_ = s.Flush()
		return s
	}
	var head message.Response
	conversation := open("/conversation", "text/plain")
	defer conversation.Done()
	if err := conversation.Receive(&head); err != nil || head.Status == 408 {
		return false
	}
	if head.Status != 200 {
		t.Fatalf("%+v", head)
	}
	grpc := open("/a.Service/Call", "application/grpc")
	defer grpc.Done()
	slow := open("/slow", "text/plain")
	if err := slow.Receive(&head); err != nil || head.Status != 408 {
		t.Errorf("%+v %v", head, err)
	}
	if got := rest(slow); got != "request timeout\n end" {
		t.Errorf("%q", got)
	}
	slow.Done()
	if got := <-read; got != "so far CANCEL" {
		t.Errorf("the upstream read %q", got)
	}
	for name, s := range map[string]*http2.ClientStream{"the bidirectional stream": conversation, "the gRPC call": grpc} {
		_ = s.Write([]byte(", and so good"))
		_ = s.End(nil)
		if s == grpc {
			if err := s.Receive(&head); err != nil || head.Status != 200 {
				t.Fatalf("%+v %v", head, err)
			}
		}
		if got := rest(s); got != "so far, and so good end end" {
			t.Errorf("%s: %q", name, got)
		}
	}
	return true
}

// The goroutine that reads the response sends a small body itself.
func TestASmallBodyNeedsNoGoroutine(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.closed()))
	s := w.dial2(address).Open()
	defer s.Done()
	if !s.HasRoom() {
		t.Error("over HTTP/2 a separate goroutine sends the body")
	}
}
