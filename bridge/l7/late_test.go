package l7

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/faulttest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// limitedWaits maps each kind of wait to a function that begins it on a connection to
// the gateway, and returns when the limit has passed.
var limitedWaits = map[string]func(t *testing.T, c net.Conn){
	"the wait for the first request": func(t *testing.T, c net.Conn) {
		_, _ = io.Copy(io.Discard, c)
	},
	"the wait for the rest of a header": func(t *testing.T, c net.Conn) {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost:")
		_, _ = io.Copy(io.Discard, c)
	},
	"the wait for the next request": func(t *testing.T, c net.Conn) {
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	},
	"the wait for the rest of a response": func(t *testing.T, c net.Conn) {
		fmt.Fprint(c, "GET /stalls HTTP/1.1\r\nHost: a\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
	},
	"the wait for the next HTTP/2 request": func(t *testing.T, c net.Conn) {
		client := http2.NewClientConn(c, http2.Options{IdleTimeout: time.Hour})
		ended := make(chan struct{})
		go func() { defer close(ended); _ = client.Run() }()
		s := client.Open()
		if err := s.Send(&message.Request{Method: "GET", Scheme: "http", Authority: "a", Target: "/"}, true); err != nil {
			t.Error(err)
		}
		_ = s.Flush()
		var head message.Response
		if err := s.Receive(&head); err != nil || head.Status != 200 {
			t.Errorf("%d %v", head.Status, err)
		}
		_ = rest(s)
		s.Done()
		<-ended
	},
}

// Limits end a wait neither early nor more than 5 percent late.
func TestTimeLimitsAreAtMostFivePercentLate(t *testing.T) {
	for name, wait := range limitedWaits {
		for _, limit := range []time.Duration{100 * time.Millisecond, time.Second, 15 * time.Second, time.Minute, 10 * time.Minute} {
			t.Run(fmt.Sprintf("%s, %v", name, limit), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { keepLimit(t, limit, wait) })
			})
		}
	}
}

func keepLimit(t *testing.T, limit time.Duration, wait func(t *testing.T, c net.Conn)) {
	w := newTestbed(t)
	back, front := faulttest.Listen(), faulttest.Listen()
	defer back.Close()
	go func() {
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					body := "ok"
					if r.URL.Path == "/stalls" {
						body = "o"
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%s", body)
				}
			}()
		}
	}()
	pools := backs.New(backs.Options{Protocol: backs.HTTP1, Upstream: upstream.New(upstream.Options{
		Name: "up", Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: "up.test:1"}}, IdleTimeout: limit,
		Connect: func(ctx context.Context, _, _ string) (net.Conn, error) { return back.Dial(ctx) },
	})})
	defer pools.Retire()
	s := New(Options{Listener: "front", Table: fixed(&Table{Default: to(pools), IdleTimeout: limit, HeaderReadTimeout: limit}), Logger: w.logger(0)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(front) }()
	c, err := front.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	wait(t, c)
	c.Close()
	if took := time.Since(begin); took < limit || took > limit+limit/20 {
		t.Errorf("ended after %v", took)
	}
	_ = s.Shutdown(context.Background())
	<-served
}
