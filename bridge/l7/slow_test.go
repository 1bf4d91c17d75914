package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/exchange"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

const (
	slowLimit = 300 * time.Millisecond
	slowBody  = 12 << 20 // larger than the kernel's buffers
)

// slowly reads n bytes with pauses, so that its writer waits for several times slowLimit. It
// returns the longest time between two reads.
func slowly(r io.Reader, n int) (longest time.Duration, err error) {
	buf := make([]byte, 16<<10)
	for last := time.Now(); n > 0; {
		got, err := r.Read(buf)
		if n -= got; err != nil && n > 0 {
			return longest, err
		}
		time.Sleep(5 * time.Millisecond)
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
	}
	return longest, nil
}

// steadily calls f with growing limits until it succeeds. f returns the reader's longest pause.
// A busy machine makes pauses longer, and the kernel tells the writer of new room only after
// several reads, so a failure counts only if the pauses were far below the limit.
func steadily(t *testing.T, f func(t *testing.T, limit time.Duration) (longest time.Duration, err error)) {
	for limit := slowLimit; ; limit *= 4 {
		longestStall := measureStalls()
		longest, err := f(t, limit)
		longest = max(longest, longestStall())
		if err == nil {
			return
		}
		if longest < limit/20 {
			t.Fatalf("within a limit of %v a reader whose longest pause was %v failed: %v", limit, longest, err)
		}
		if limit > testTimeout {
			t.Skipf("the machine is too busy: the reader has paused for %v", longest)
		}
	}
}

// measureStalls measures how long the whole process stalls. The function that it returns ends that,
// and returns the longest time.
func measureStalls() (end func() time.Duration) {
	stop, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		most, last := time.Duration(0), time.Now()
		for {
			select {
			case <-stop:
				longest <- most
				return
			case now := <-time.After(5 * time.Millisecond):
				most, last = max(most, time.Since(last)), now
			}
		}
	}()
	return func() time.Duration { close(stop); return <-longest }
}

// A client that reads slowly but steadily gets the whole response, although that takes
// longer than the limit.
func TestSlowClientsAreServed(t *testing.T) {
	t.Parallel()
	for _, front := range []string{"HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2 over TLS"} {
		t.Run(front, func(t *testing.T) {
			t.Parallel()
			steadily(t, func(t *testing.T, limit time.Duration) (time.Duration, error) {
				w := newTestbed(t)
				table := &Table{IdleTimeout: limit, Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
					_, _ = rw.Write(make([]byte, slowBody))
				}))))}
				if front != "HTTP/1.1" {
					table.TLS = w.listenerTLS("h2", "http/1.1")
				}
				_, address := w.gateway(fixed(table))
				if front == "HTTP/2 over TLS" {
					res, err := w.browser().Get("https://" + address)
					if err != nil {
						return 0, err
					}
					defer res.Body.Close()
					return slowly(res.Body, slowBody)
				}
				c := w.dial(address)
				_ = c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10)
				_ = c.SetDeadline(time.Time{})
				if table.TLS != nil {
					tc := tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
					c = &rawConn{tc, bufio.NewReader(tc)}
				}
				c.send("GET / HTTP/1.1", "Host: a")
				return slowly(c, slowBody)
			})
		})
	}
}

// An upstream that reads slowly but steadily gets the whole upload.
func TestSlowUpstreamsAreServed(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, retries := range []bool{false, true} {
			t.Run(fmt.Sprintf("TLS %v, retries %v", secure, retries), func(t *testing.T) {
				t.Parallel()
				steadily(t, func(t *testing.T, limit time.Duration) (time.Duration, error) {
					return slowUpload(t, limit, secure, retries)
				})
			})
		}
	}
}

// throughTo returns the address of a gateway whose upstream calls serve for each
// connection.
func (w *testbed) throughTo(serve func(net.Conn), limit time.Duration, secure, retries bool) string {
	o := upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, IdleTimeout: limit, Endpoints: []upstream.EndpointOptions{{Network: "tcp"}}}
	if secure {
		o.Endpoints[0].Address = w.raw(w.serverTLS("http/1.1"), serve)
		o.Endpoints[0].Stream, o.Endpoints[0].HTTP = w.client(), w.client("http/1.1")
	} else {
		o.Endpoints[0].Address = w.raw(nil, serve)
	}
	table := &Table{Default: to(w.newBack(backs.Options{Upstream: upstream.New(o), Protocol: backs.HTTP1, TLS: secure}))}
	if retries {
		table.Default.Forward.Retry = &exchange.Retry{}
	}
	_, address := w.gateway(fixed(table))
	return address
}

// upload uploads slowBody bytes and returns the status of the response.
func upload(t *testing.T, c *rawConn) int {
	t.Helper()
	c.send("POST / HTTP/1.1", "Host: a", fmt.Sprint("Content-Length: ", slowBody))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = c.Write(make([]byte, slowBody)) // fails if the response arrives first
	}()
	res, _ := c.answer(t, "POST")
	c.Close()
	<-sent
	return res.StatusCode
}

func slowUpload(t *testing.T, limit time.Duration, secure, retries bool) (longest time.Duration, err error) {
	w := newTestbed(t)
	pauses := make(chan time.Duration, 10)
	serve := func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReaderSize(c, 100))
		if err != nil {
			pauses <- 0
			return
		}
		longest, err := slowly(r.Body, slowBody)
		if pauses <- longest; err == nil {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
	c := w.dial(w.throughTo(serve, limit, secure, retries))
	_ = c.SetDeadline(time.Time{})
	if status := upload(t, c); status != 200 {
		err = fmt.Errorf("status %d", status)
	}
	select {
	case longest = <-pauses:
	case <-time.After(testTimeout): // the upstream got no connection
	}
	return longest, err
}

// A client that does not read is cut off.
func TestStuckClientsAreCutOff(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		w := newTestbed(t)
		table := &Table{IdleTimeout: slowLimit, Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
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
			t.Errorf("TLS %v: a cut-off response looks complete", secure)
		}
	}
}

// If an upstream neither reads an upload nor answers, the client waits no longer than
// the limit.
func TestStuckUpstreamsTimeOut(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		for _, retries := range []bool{false, true} {
			w := newTestbed(t)
			finish := make(chan struct{})
			serve := func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReaderSize(c, 100)); err == nil {
					<-finish
				}
			}
			if status := upload(t, w.dial(w.throughTo(serve, slowLimit, secure, retries))); status != 504 {
				t.Errorf("TLS %v, retries %v: answered %d", secure, retries, status)
			}
			close(finish)
		}
	}
}

// Without a timeout on its route the wait for a response is still bounded. The
// timeout starts at the end of the request, and does not apply to gRPC calls.
func TestResponsesHaveATimeoutByDefault(t *testing.T) {
	t.Parallel()
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		withGrowingLimit(t, time.Second, func(limit time.Duration) bool { return responsesAreLimited(t, p, limit) })
	}
}

func responsesAreLimited(t *testing.T, p backs.Protocol, limit time.Duration) (inTime bool) {
	w := newTestbed(t)
	finish := make(chan struct{})
	back := w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/silent":
			<-finish
		case "/late":
			<-time.After(limit * 5 / 4)
		}
	}), "h2", "http/1.1"))
	s := New(Options{Listener: "front", Table: fixed(&Table{Default: to(back)}), Logger: w.logger(hclog.Debug)})
	s.shared.ResponseTimeout = limit
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
	code := send("/", "text/plain", limit*5/4)
	if inTime = code != 504; inTime && code != 200 {
		t.Errorf("%v: a slow upload: %d", p, code)
	}
	if code := send("/late", "application/grpc", 0); code != 200 {
		t.Errorf("%v: a call of gRPC: %d", p, code)
	}
	close(finish)
	return inTime
}
