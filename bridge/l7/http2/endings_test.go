package http2

import (
	"errors"
	"io"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

var errTest = errors.New("test")

// Streams that carry bytes both ways end correctly, for every order and kind of
// end. Each row says what the server's handler does after it has read "ping"
// and answered "pong", what the client does after that, and what each of them
// sees then.
func TestStreamsEndCorrectlyInEveryOrder(t *testing.T) {
	see := func(err error) string {
		var e *Error
		switch {
		case err == nil:
			return "ok"
		case err == io.EOF:
			return "end"
		case errors.Is(err, ErrUnwanted):
			return "unwanted"
		case errors.Is(err, errTest):
			return "own"
		case errors.As(err, &e) && e.Remote && !e.Connection:
			return e.Code.String()
		default:
			return err.Error()
		}
	}
	for _, c := range []struct {
		name           string
		server         func(s *ServerStream)
		client         func(s *ClientStream)
		atServer       string // how its Read ends
		read, written  string // what the client's Read, and then its Write, return
		clientIsFirst  bool
		serverStillCan bool // write, after its Read returned
	}{
		{name: "the server completes its response while the client still sends", server: func(s *ServerStream) { _ = s.End(message.Fields{{Name: "x", Value: "y"}}) },
			read: "end", written: "unwanted"},
		{name: "the server fails", server: func(s *ServerStream) { s.Abort(errTest) },
			read: "INTERNAL_ERROR", written: "INTERNAL_ERROR"},
		{name: "the server's handler returns", server: func(*ServerStream) {},
			read: "INTERNAL_ERROR", written: "INTERNAL_ERROR"},
		{name: "the server forwards the cancel of its own upstream", server: func(s *ServerStream) { s.Abort(&Error{Code: h2.ErrCodeCancel, Remote: true}) },
			read: "CANCEL", written: "CANCEL"},
		{name: "the server writes after the end of its body", server: func(s *ServerStream) { _ = s.End(nil); _ = s.Write([]byte("x")) },
			read: "end", written: "unwanted"},

		{name: "the client half-closes", client: func(s *ClientStream) { _ = s.End(message.Fields{{Name: "x", Value: "y"}}) }, clientIsFirst: true,
			atServer: "end", serverStillCan: true, read: "end", written: "http2: stream closed"},
		{name: "the client cancels", client: func(s *ClientStream) { s.Abort(errTest) }, clientIsFirst: true,
			atServer: "CANCEL", read: "own", written: "own"},
		{name: "the client calls Done", client: func(s *ClientStream) { s.Done() }, clientIsFirst: true,
			atServer: "CANCEL", read: "http2: stream closed", written: "http2: stream closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			atServer := make(chan string, 1)
			read, finish := make(chan struct{}), make(chan struct{})
			gone := make(chan error, 1)
			client, _ := connected(t, Options{}, Options{}, func(s *ServerStream) {
				s.Notify(func(cause error) { gone <- cause })
				if p, err := s.Read(); string(p) != "ping" || err != nil {
					t.Errorf("%q %v", p, err)
				}
				_ = s.Respond(ok(), false)
				_ = s.Write([]byte("pong"))
				_ = s.Flush()
				if c.server != nil {
					<-read
					c.server(s)
					return
				}
				_, err := s.Read()
				atServer <- see(err)
				if err := s.Write([]byte("more")); (err == nil) != c.serverStillCan {
					t.Errorf("the server's Write: %v", err)
				}
				if c.serverStillCan {
					_ = s.End(nil)
				} else if cause := <-gone; see(cause) != c.atServer {
					t.Errorf("Notify reported %v", cause)
				}
				<-finish
			})
			s := client.Open()
			if err := s.Send(post("/"), false); err != nil {
				t.Fatal(err)
			}
			_ = s.Write([]byte("ping"))
			_ = s.Flush()
			var head message.Response
			if err := s.Receive(&head); err != nil {
				t.Fatal(err)
			}
			if p, err := s.Read(); string(p) != "pong" || err != nil {
				t.Fatalf("%q %v", p, err)
			}
			close(read)
			if c.client != nil {
				c.client(s)
				if got := <-atServer; got != c.atServer {
					t.Errorf("the server read: %s", got)
				}
			}
			_, err := readAll(s)
			if err == nil {
				err = io.EOF
			}
			if see(err) != c.read {
				t.Errorf("the client read: %v", err)
			}
			// The server's RST_STREAM follows its END_STREAM.
			eventually(t, "the end of writing", func() bool { return s.Write([]byte("x")) != nil })
			if got := see(s.Write([]byte("x"))); got != c.written {
				t.Errorf("the client wrote: %s", got)
			}
			close(finish)
			s.Done()
			if n := client.Streams(); n != 0 {
				t.Errorf("%d streams", n)
			}
		})
	}
}

// A response may be in flight when its request is canceled. Its frames are
// dropped and affect no other stream.
func TestFramesOfACanceledStreamAreDropped(t *testing.T) {
	c, nc := dial(t, Options{})
	r := rawServer(t, nc)
	s := c.Open()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	id := r.takeRequest()
	s.Done()
	if got := r.outcome(id); got != "RST CANCEL" {
		t.Fatal(got)
	}
	r.headers(id, false, ":status: 200", "x-new: entry")
	r.must(r.WriteData(id, false, make([]byte, 5000)))
	r.must(r.WriteWindowUpdate(id, 5))
	r.headers(id, true, "x: y")
	r.must(r.WriteRSTStream(id, h2.ErrCodeNo))

	s = c.Open()
	defer s.Done()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	id = r.takeRequest()
	r.headers(id, true, ":status: 200", "x-new: entry") // sent by its table index
	var head message.Response
	if err := s.Receive(&head); err != nil {
		t.Fatal(err)
	}
	if v, _ := head.Fields.Get("x-new"); v != "entry" {
		t.Errorf("%+v", head)
	}
}

// Frames for a server that has completed its response or refused the request are
// dropped too.
func TestFramesOfAnAnsweredStreamAreDropped(t *testing.T) {
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		_ = s.Respond(&message.Response{Status: 403, Length: 0}, true)
	})
	r := rawClient(t, nc)
	for id := uint32(1); id < 20; id += 2 {
		fields := simplePost
		if id%4 == 1 {
			fields = with(fields, "connection: close")
		}
		r.headers(id, false, fields...)
		for range 3 {
			r.must(r.WriteData(id, false, make([]byte, 16000)))
		}
		r.headers(id, true, "x: y")
		if got := r.outcome(id); got != "403" && got != "RST PROTOCOL_ERROR" {
			t.Errorf("%s", got)
		}
	}
}

func TestTheRestOfABodyCanBeRefused(t *testing.T) {
	c, _ := connected(t, Options{}, Options{}, func(s *ServerStream) {
		reading := make(chan error, 1)
		go func() {
			_, err := readAll(s)
			reading <- err
		}()
		if s.Buffered() {
			_, _ = s.Read()
		}
		s.Refuse()
		s.Refuse()
		if err := <-reading; !errors.Is(err, errRefused) {
			t.Errorf("Read returned %v", err)
		}
		if _, err := s.Read(); !errors.Is(err, errRefused) {
			t.Errorf("Read returned %v", err)
		}
		_ = s.Respond(ok(), false)
		_ = s.Write([]byte("done"))
		_ = s.End(nil)
	})
	s := c.Open()
	defer s.Done()
	_ = s.Send(post("/"), false)
	go func() {
		for s.Write(make([]byte, 10_000)) == nil {
		}
	}()
	if heads, body, err := receive(s); err != nil || body != "done" {
		t.Errorf("%v %q %v", heads, body, err)
	}
}

// A response whose length differs from the declared one never ends normally.
func TestAResponseOfTheWrongLengthIsReset(t *testing.T) {
	errs := make(chan error, 1)
	c, _ := connected(t, Options{}, Options{}, func(s *ServerStream) {
		_ = s.Respond(&message.Response{Status: 200, Length: 3}, false)
		if s.Request().Target == "/short" {
			_ = s.Write([]byte("ab"))
			errs <- s.End(nil)
		} else {
			errs <- s.Write([]byte("abcd"))
		}
	})
	for _, path := range []string{"/short", "/long"} {
		s := c.Open()
		_ = s.Send(get(path), true)
		if heads, body, err := receive(s); err == nil {
			t.Errorf("%s: %v %q", path, heads, body)
		}
		if err := <-errs; err == nil {
			t.Errorf("%s: no error", path)
		}
		s.Done()
	}
}

func TestNotifyCallsOnceAndCanBeUnregistered(t *testing.T) {
	causes := make(chan error, 10)
	step := make(chan struct{})
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		tell := func(cause error) { causes <- cause }
		switch s.Request().Target {
		case "/back":
			s.Notify(tell)
			s.Notify(nil)
			step <- struct{}{}
			_, err := readAll(s)
			if err == nil {
				t.Error("an aborted body looks complete")
			}
		case "/late":
			if _, err := readAll(s); err == nil {
				t.Error("an aborted body looks complete")
			}
			s.Notify(tell)
		case "/end":
			s.Notify(tell)
			_, _ = readAll(s)
			_ = s.Respond(&message.Response{Status: 204}, true)
		}
		step <- struct{}{}
	})
	r := rawClient(t, nc)
	for i, path := range []string{"/back", "/late", "/end"} {
		id := uint32(2*i + 1)
		r.headers(id, false, ":method: POST", ":scheme: https", ":authority: a.test", ":path: "+path)
		if path == "/back" {
			<-step
		}
		if path == "/end" {
			r.must(r.WriteData(id, true, nil))
		} else {
			r.must(r.WriteRSTStream(id, h2.ErrCodeCancel))
		}
		<-step
		if want := path == "/late"; len(causes) != map[bool]int{true: 1}[want] {
			t.Errorf("%s: called %d times", path, len(causes))
		}
		for len(causes) > 0 {
			<-causes
		}
	}
}

// A response can be ended early even while another goroutine waits to write
// more of it.
func TestAResponseCanBeFinishedInTheMiddle(t *testing.T) {
	trailer := message.Fields{{Name: "x-why", Value: "late"}}
	client, _ := connected(t, Options{}, Options{}, func(s *ServerStream) {
		if s.Finish(trailer) {
			t.Error("Finish returned true before Respond")
		}
		r := ok()
		if s.Request().Target == "/sized" {
			r.Length = 1 << 20
		}
		if err := s.Respond(r, false); err != nil {
			t.Error(err)
		}
		written := make(chan error, 1)
		go func() { written <- s.Write(make([]byte, 1<<20)) }()
		eventually(t, "the write to wait", func() bool {
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			return s.sendWindow == 0
		})
		if r.Length > 0 {
			if s.Finish(trailer) {
				t.Error("Finish returned true for a body of the wrong length")
			}
			s.Abort(errTest)
			<-written
			return
		}
		if !s.Finish(trailer) || !s.Finish(nil) {
			t.Error("Finish returned false")
		}
		if err := <-written; err == nil {
			t.Error("Write succeeded after Finish")
		}
		if err := s.End(nil); err == nil {
			t.Error("End succeeded after Finish")
		}
	})
	for target, want := range map[string]string{"/": "late", "/sized": ""} {
		s := client.Open()
		if err := s.Send(post(target), false); err != nil {
			t.Fatal(err)
		}
		_ = s.Flush()
		var head message.Response
		if err := s.Receive(&head); err != nil && want != "" {
			t.Error(err)
		}
		eventually(t, "the stream to end", func() bool { // Read reopens its window
			s.c.mu.Lock()
			defer s.c.mu.Unlock()
			return s.recvEnd || s.readErr != nil
		})
		body, err := readAll(s)
		if trailer, _ := s.Trailer().Get("x-why"); trailer != want || (err == nil) != (want != "") || err == nil && len(body) != firstWindow {
			t.Errorf("%s: %d bytes, %v, %q", target, len(body), err, trailer)
		}
		s.Done()
	}
}
