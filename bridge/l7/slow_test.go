package l7

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

const (
	slowLimit = 300 * time.Millisecond
	slowBody  = 12 << 20 // more than the kernel holds
)

// A client that reads nothing is cut off.
func TestStuckClientsAreCutOff(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		w := newWorld(t)
		table := &Table{IdleTimeout: slowLimit, Default: to(w.back(HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write(make([]byte, slowBody))
		}))))}
		if secure {
			table.TLS = w.listenerTLS("http/1.1")
		}
		s, address := w.gateway(fixed(table))
		c := w.dial(address)
		_ = c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		if secure {
			tc := tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
			c = &rawConn{tc, bufio.NewReader(tc)}
		}
		c.send("GET / HTTP/1.1", "Host: a")
		eventually(t, "the client is cut off", func() bool { return s.Stats().Accepted == 1 && s.Stats().Open == 0 })
		res, err := http.ReadResponse(c.r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
		}
		if err == nil {
			t.Errorf("TLS %v: what was cut off looks whole", secure)
		}
	}
}

// An upstream that takes nothing of an upload, and says nothing, costs its client no
// more than the limit.
func TestStuckUpstreamsAreNotWaitedFor(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, retries := range []bool{false, true} {
			w := newWorld(t)
			over := make(chan struct{})
			serve := func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReaderSize(c, 100)); err == nil {
					<-over
				}
			}
			o := upstream.Options{Name: "up", IdleTimeout: slowLimit, Endpoints: []upstream.EndpointOptions{{Network: "tcp"}}}
			if secure {
				o.Endpoints[0].Address = w.raw(w.serverTLS("http/1.1"), serve)
				o.Endpoints[0].Stream, o.Endpoints[0].HTTP = w.client(), w.client("http/1.1")
			} else {
				o.Endpoints[0].Address = w.raw(nil, serve)
			}
			table := &Table{Default: to(w.newBack(BackOptions{Upstream: upstream.New(o), Protocol: HTTP1, TLS: secure}))}
			if retries {
				table.Default.Forward.Retry = &Retry{}
			}
			_, address := w.gateway(fixed(table))
			c := w.dial(address)
			c.send("POST / HTTP/1.1", "Host: a", fmt.Sprint("Content-Length: ", slowBody))
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(make([]byte, slowBody))
				sent <- err
			}()
			if res, _ := c.answer(t, "POST"); res.StatusCode != 504 {
				t.Errorf("TLS %v, retries %v: answered %d", secure, retries, res.StatusCode)
			}
			c.Close()
			<-sent
			close(over)
		}
	}
}

// A still is one side of a tunnel on which nothing happens until it is over.
type still struct {
	over    chan struct{}
	stuck   bool // what it is sent waits too
	ended   bool // it has ended its stream
	pending atomic.Int32
}

func (s *still) Read() ([]byte, error) {
	if s.ended {
		return nil, io.EOF
	}
	if s.pending.Add(-1) >= 0 {
		return []byte("x"), nil
	}
	<-s.over
	return nil, errors.New("over")
}

func (s *still) Buffered() bool { return s.pending.Load() > 0 }
func (s *still) Flush() error   { return nil }

func (s *still) Write([]byte) error {
	if s.stuck {
		<-s.over
		return errors.New("over")
	}
	return nil
}

// An upgraded connection on which nothing moves ends, whichever versions carry it:
// at its idle limit, or, when one side has ended its stream, at a shorter one.
func TestTunnelsEndWhenNothingMoves(t *testing.T) {
	t.Parallel()
	const short, long = 200 * time.Millisecond, time.Hour
	for name, c := range map[string]struct {
		idle, linger time.Duration
		ended, stuck bool
		how          splice.Ending
	}{
		"nothing moves":             {short, long, false, false, splice.Idle},
		"one side has ended":        {long, short, true, false, splice.Linger},
		"a side takes nothing":      {short, long, false, true, splice.Idle},
		"ended, and takes nothing":  {short * 2, short, true, true, splice.Idle},
		"ended, idle before linger": {short, long, true, false, splice.Idle},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			over := make(chan struct{})
			ended := make(chan splice.Ending, 1)
			begun := time.Now()
			tunnel := newTunnel(c.idle, c.linger, func(how splice.Ending) {
				ended <- how
				close(over)
			})
			defer tunnel.stop()
			client, server := &still{over: over, ended: c.ended}, &still{over: over}
			if c.stuck {
				client.stuck = true
				server.pending.Store(1)
			}
			done := make(chan bool, 2)
			var n, m uint64
			go func() { _ = tunnel.carry(client, stillSink{server}, &n); done <- true }()
			go func() { _ = tunnel.carry(server, stillSink{client}, &m); done <- true }()
			if how := <-ended; how != c.how || time.Since(begun) < short {
				t.Errorf("ended as %q after %v, want %q", how, time.Since(begun), c.how)
			}
			<-done
			<-done
		})
	}
}

type stillSink struct{ *still }

func (stillSink) End(message.Fields) error { return nil }

// Without a timeout of its route a request is not waited for without end. The time
// runs from when all of it was sent, and not for calls of gRPC.
func TestResponsesHaveATimeoutByDefault(t *testing.T) {
	t.Parallel()
	const limit = 1500 * time.Millisecond // enough for a busy machine to answer
	for _, p := range []Protocol{HTTP1, HTTP2} {
		w := newWorld(t)
		over := make(chan struct{})
		back := w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			switch r.URL.Path {
			case "/silent":
				<-over
			case "/late":
				<-time.After(limit * 5 / 4)
			}
		}), "h2", "http/1.1"))
		s := New(Options{Listener: "front", Table: fixed(&Table{Default: to(back)}), Logger: w.logger(hclog.Debug)})
		s.responseTimeout = limit
		address := w.serve(s)
		send := func(path, contentType string, slow time.Duration) int {
			body, upload := io.Pipe()
			go func() {
				time.Sleep(slow)
				_, _ = io.WriteString(upload, "hello")
				upload.Close()
			}()
			res, err := w.browser().Post("http://"+address+path, contentType, body)
			if err != nil {
				t.Error(err)
				return 0
			}
			res.Body.Close()
			return res.StatusCode
		}
		if code := send("/silent", "text/plain", 0); code != 504 {
			t.Errorf("%v: a silent upstream: %d", p, code)
		}
		if code := send("/", "text/plain", limit*5/4); code != 200 {
			t.Errorf("%v: a slow upload: %d", p, code)
		}
		if code := send("/late", "application/grpc", 0); code != 200 {
			t.Errorf("%v: a call of gRPC: %d", p, code)
		}
		close(over)
	}
}
