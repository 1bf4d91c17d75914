package l7

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A grpcCall is the outcome of a call through a gateway.
type grpcCall struct {
	head    message.Response
	body    string // the body, and how it ended
	trailer message.Fields
}

// status is the call's gRPC status, and where it was: in the head or the trailer.
func (c *grpcCall) status() string {
	if v, ok := c.head.Fields.Get("grpc-status"); ok {
		return "head " + v
	}
	v, _ := c.trailer.Get("grpc-status")
	return "trailer " + v
}

// call makes a call in which the client does not end its side of the stream.
func call(t *testing.T, client *http2.ClientConn, target string, fields ...message.Field) *grpcCall {
	t.Helper()
	s := client.Open()
	defer s.Done()
	fields = append(fields, message.Field{Name: "content-type", Value: "application/grpc+proto"})
	if err := s.Send(&message.Request{Method: "POST", Scheme: "http", Authority: "a.test", Target: target, Length: -1, Trailers: true, Fields: fields}, false); err != nil {
		t.Fatal(err)
	}
	_ = s.Write([]byte("ping"))
	_ = s.Flush()
	c := &grpcCall{}
	if err := s.Receive(&c.head); err != nil {
		t.Fatal(err)
	}
	c.body, c.trailer = rest(s), s.Trailer()
	return c
}

func timeout(value string) message.Field { return message.Field{Name: "grpc-timeout", Value: value} }

// When the deadline of a call passes, the call ends upstream, and its client gets
// the status DEADLINE_EXCEEDED. That holds before and after the response has
// begun, and for each way that the client reads it.
func TestACallEndsAtItsDeadline(t *testing.T) {
	for _, c := range []struct {
		name     string
		total    time.Duration                         // the total timeout of the route
		timeout  func(d time.Duration) []message.Field // the client's timeout, about d
		upstream func(s *http2.ServerStream)
		head     bool // the status comes instead of a response
		body     string
	}{
		{name: "before the response", head: true, body: " end"},
		{name: "in the response", body: "pong end", upstream: func(s *http2.ServerStream) { _ = s.Write([]byte("pong")); _ = s.Flush() }},
		{name: "while the client does not read the response", body: "much", upstream: func(s *http2.ServerStream) {
			for s.Write(make([]byte, 16<<10)) == nil {
			}
		}},
		{name: "the route's timeout is shorter", total: 1, timeout: func(time.Duration) []message.Field { return []message.Field{timeout("99H")} }, head: true, body: " end"},
		{name: "the route's timeout passes in the response", total: 1, timeout: func(time.Duration) []message.Field { return nil }, body: "pong end",
			upstream: func(s *http2.ServerStream) { _ = s.Write([]byte("pong")); _ = s.Flush() }},
		{name: "the call's timeout is shorter", total: time.Hour, body: "pong end", upstream: func(s *http2.ServerStream) { _ = s.Write([]byte("pong")); _ = s.Flush() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			read := make(chan string, 100)
			back := w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
				if c.upstream != nil {
					_ = s.Respond(&message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}}}, false)
					_ = s.Flush()
					c.upstream(s)
				}
				given, _ := s.Request().Fields.Get("grpc-timeout")
				read <- given + " " + rest(s)
			}))
			// On a busy machine, the request may be sent or the response begin too late:
			// then the call gets more time.
			for d := 100 * time.Millisecond; ; d *= 2 {
				action, given := to(back), []message.Field{timeout(fmt.Sprint(d.Milliseconds(), "m"))}
				if action.Forward.TotalTimeout = c.total; c.total == 1 {
					action.Forward.TotalTimeout = d
				}
				if c.timeout != nil {
					given = c.timeout(d)
				}
				_, address := w.gateway(fixed(&Table{Default: action}))
				got := call(t, w.dial2(address), "/a.Service/Call", given...)
				upstream, sent := readOf(read, given, d)
				if !sent && d < testTimeout {
					continue // the deadline passed before the request was sent
				}
				if !strings.HasSuffix(upstream, " CANCEL") {
					t.Errorf("the upstream read %q", upstream)
				}
				want := "trailer 4"
				if c.head {
					want = "head 4"
				} else if got.status() == "head 4" && d < testTimeout {
					continue
				}
				body := got.body
				if c.body == "much" && len(body) > 64<<10 && strings.HasSuffix(body, " end") {
					body = c.body
				}
				if got.head.Status != 200 || got.status() != want || body != c.body {
					t.Errorf("%+v with %s, a body of %d bytes", got.head, got.status(), len(got.body))
				}
				return
			}
		})
	}
}

// An upstream that enforces the deadline of a call ends it when the gateway does. Whichever is
// first, the status is DEADLINE_EXCEEDED, because clients repeat a call that is UNAVAILABLE.
func TestAnUpstreamThatEndsACallAtItsDeadlineIsNotAtFault(t *testing.T) {
	for _, responds := range []bool{false, true} {
		t.Run(fmt.Sprintf("responds=%v", responds), func(t *testing.T) {
			w := newTestbed(t)
			back := w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
				passed := time.After(time.Millisecond)
				if responds {
					_ = s.Respond(&message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}}}, false)
					_ = s.Write([]byte("pong"))
					_ = s.Flush()
				}
				<-passed
				s.Abort(nil)
			}))
			_, address := w.gateway(fixed(&Table{Default: to(back)}))
			client := w.dial2(address)
			for range 300 {
				got := call(t, client, "/a.Service/Call", timeout("1m"))
				if status := got.status(); status != "head 4" && !(responds && status == "trailer 4") {
					t.Fatalf("%+v with %s, body %q", got.head, status, got.body)
				}
			}
		})
	}
}

// readOf returns the bytes that the upstream read from the call with these fields. It
// drops bytes of earlier calls, and reports false if no such call arrives.
func readOf(read <-chan string, given []message.Field, deadline time.Duration) (string, bool) {
	timer := time.NewTimer(deadline + time.Second)
	defer timer.Stop()
	for {
		select {
		case r := <-read:
			if len(given) == 0 || strings.HasPrefix(r, given[0].Value+" ") {
				return r, true
			}
		case <-timer.C:
			return "", false
		}
	}
}

// A call without a deadline, or with an invalid one, gets no deadline.
func TestInvalidCallTimeoutsSetNoDeadline(t *testing.T) {
	w := newTestbed(t)
	seen := make(chan string, 100)
	_, address := w.plain(w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
		seen <- s.Request().Target
		if s.Request().Target == "/page" {
			_ = s.Respond(&message.Response{Status: 204}, true)
			return
		}
		_ = s.Respond(&message.Response{Status: 200, Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}, {Name: "grpc-status", Value: "0"}}}, true)
	})))
	client := w.dial2(address)
	for _, c := range []struct {
		name   string
		fields []message.Field
		want   string
	}{
		{"no timeout", nil, "head 0"},
		{"a long timeout", []message.Field{timeout("99999999H")}, "head 0"},
		{"a timeout of zero", []message.Field{timeout("0n")}, "head 4"},
		{"a malformed timeout", []message.Field{timeout("1s")}, "head 13"},
		{"an empty timeout", []message.Field{timeout("")}, "head 13"},
		{"two timeouts", []message.Field{timeout("1H"), timeout("1H")}, "head 13"},
	} {
		target := "/" + strings.ReplaceAll(c.name, " ", "-")
		if got := call(t, client, target, c.fields...); got.status() != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.want == "head 0" {
			if got := <-seen; got != target {
				t.Errorf("%q reached the upstream", got)
			}
		}
	}
	// In other requests the field has no meaning.
	s := client.Open()
	defer s.Done()
	if err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a.test", Target: "/page", Fields: message.Fields{timeout("1s")}}, true); err != nil {
		t.Fatal(err)
	}
	var head message.Response
	if err := s.Receive(&head); err != nil || head.Status != 204 {
		t.Errorf("%+v %v", head, err)
	}
	if got := <-seen; got != "/page" || len(seen) > 0 {
		t.Errorf("%q and %d more reached the upstream", got, len(seen))
	}
}

// A response that has begun is cut off if no trailer can report the missed
// deadline: over HTTP/1.1, and if it is not a gRPC response.
func TestCallPastItsDeadlineIsCutOffWithoutTrailers(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP2, w.upstream2(func(s *http2.ServerStream) {
		kind := map[string]string{"/page": "text/html", "/call": "application/grpc"}[s.Request().Target]
		_ = s.Respond(&message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "content-type", Value: kind}}}, false)
		_ = s.Write([]byte("pong"))
		_ = s.Flush()
		_ = rest(s)
	})))
	client := w.dial2(address)
	for d := 100 * time.Millisecond; ; d *= 2 {
		got := call(t, client, "/page", timeout(fmt.Sprint(d.Milliseconds(), "m")))
		if got.status() == "head 4" && d < testTimeout {
			continue
		}
		if got.status() != "trailer " || got.body != "pong CANCEL" {
			t.Errorf("%+v", got)
		}
		break
	}
	for d := 100 * time.Millisecond; ; d *= 2 {
		c := w.dial(address)
		c.send("POST /call HTTP/1.1", "Host: a", "Content-Type: application/grpc", fmt.Sprint("Grpc-Timeout: ", d.Milliseconds(), "m"), "Transfer-Encoding: chunked")
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.Header.Get("Grpc-Status") == "4" && d < testTimeout {
			continue
		}
		if b, err := io.ReadAll(res.Body); string(b) != "pong" || err == nil {
			t.Errorf("%+v %q %v", res, b, err)
		}
		break
	}
}
