package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

func TestTablesAreSwappedBetweenRequests(t *testing.T) {
	w := newTestbed(t)
	name := func(n string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, n) })
	}
	a, b := w.back(backs.Auto, w.server(name("a"), "h2")), w.back(backs.HTTP1, w.server(name("b")))
	var table atomic.Pointer[Table]
	table.Store(&Table{Default: to(a)})
	s, address := w.gateway(table.Load)
	var wrong atomic.Int64
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		browser := w.browser()
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res, err := browser.Get("http://" + address)
				if err != nil {
					wrong.Add(1)
					continue
				}
				body, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if res.StatusCode != 200 || string(body) != "a" && string(body) != "b" {
					wrong.Add(1)
				}
			}
		})
	}
	for i := range 200 {
		back := []*backs.Pools{a, b}[i%2]
		before := s.Stats().Requests[200]
		table.Store(&Table{Default: to(back)})
		eventually(t, "requests are still served", func() bool { return s.Stats().Requests[200] > before })
	}
	table.Store(&Table{Default: to(b)})
	if code, body := w.get(w.browser(), "http://"+address); code != 200 || body != "b" {
		t.Errorf("after the last swap: %d %q", code, body)
	}
	close(stop)
	clients.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d requests failed", n)
	}
	// A client may dial again before its connection is back in its pool. But if
	// swaps closed connections, 200 swaps would cause more dials.
	if n := s.Stats().Accepted; n > 20 {
		t.Errorf("%d connections for 5 clients: swaps close them", n)
	}
}

func TestSettingsApplyToTheNextRequest(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.HTTP1, w.server(echo))
	var table atomic.Pointer[Table]
	table.Store(&Table{Default: to(back)})
	s, address := w.gateway(table.Load)
	big := "X: " + strings.Repeat("a", 20000)
	old := w.dial(address)
	old.send("GET / HTTP/1.1", "Host: a", big)
	if res, _ := old.answer(t, "GET"); res.StatusCode != 200 {
		t.Fatalf("%d", res.StatusCode)
	}
	table.Store(&Table{Default: to(back), MaxHeaderBytes: 4096})
	fresh := w.dial(address)
	fresh.send("GET / HTTP/1.1", "Host: a", big)
	if res, _ := fresh.answer(t, "GET"); res.StatusCode != 431 {
		t.Errorf("%d", res.StatusCode)
	}
	// Kept-alive connections are not closed, but their next request meets the
	// new limit too.
	old.send("GET / HTTP/1.1", "Host: a", big)
	if res, _ := old.answer(t, "GET"); res.StatusCode != 431 {
		t.Errorf("%d", res.StatusCode)
	}
	if _, err := io.Copy(io.Discard, old.r); err != nil {
		t.Errorf("%v", err)
	}
	old.Close() // the gateway reads until the client closes
	fresh.Close()
	eventually(t, "the refused connection is closed", func() bool { return s.Stats().Open == 0 })
}

func TestLimits(t *testing.T) {
	w := newTestbed(t)
	for _, table := range []*Table{{MaxConnections: 2}, {MaxPerClient: 2}} {
		s, address := w.gateway(fixed(table))
		one, two := w.dial(address), w.dial(address)
		for _, c := range []*rawConn{one, two} {
			c.send("GET / HTTP/1.1", "Host: a")
			c.answer(t, "GET")
		}
		three := w.dial(address)
		if n, err := io.Copy(io.Discard, three); n != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%d, %v", n, err)
		}
		if st := s.Stats(); st.Rejected != 1 || st.Open != 2 || st.Accepted != 2 {
			t.Errorf("%+v", st)
		}
		one.Close()
		eventually(t, "a place is free", func() bool { return s.Stats().Open == 1 })
		four := w.dial(address)
		four.send("GET / HTTP/1.1", "Host: a")
		if res, _ := four.answer(t, "GET"); res.StatusCode != 404 {
			t.Errorf("%d", res.StatusCode)
		}
	}
}

func TestHandshakesAreBoundedAndCounted(t *testing.T) {
	w := newTestbed(t)
	var table atomic.Pointer[Table]
	table.Store(&Table{TLS: w.listenerTLS("http/1.1"), HandshakeTimeout: 500 * time.Millisecond})
	s, address := w.gateway(table.Load)
	if _, err := io.Copy(io.Discard, w.dial(address)); err != nil {
		t.Errorf("silent client: %v", err)
	}
	table.Store(&Table{TLS: table.Load().TLS, HandshakeTimeout: time.Hour})
	plain := w.dial(address)
	plain.send("GET / HTTP/1.1", "Host: a")
	_, _ = io.Copy(io.Discard, plain)
	eventually(t, "failures are counted", func() bool {
		f := s.Stats().HandshakeFailures
		return f[certs.ReasonHandshakeTimeout] == 1 && f[certs.ReasonNotTLS] == 1
	})
	config := &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	for range 2 {
		c, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	if st := s.Stats(); st.HandshakesFull != 1 || st.HandshakesResumed != 1 {
		t.Errorf("%d full, %d resumed", st.HandshakesFull, st.HandshakesResumed)
	}
}

func TestANilTableClosesConnectionsAndRefusesRequests(t *testing.T) {
	w := newTestbed(t)
	var table atomic.Pointer[Table]
	table.Store(&Table{})
	_, address := w.gateway(table.Load)
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a")
	c.answer(t, "GET")
	table.Store(nil)
	c.send("GET / HTTP/1.1", "Host: a")
	if res, body := c.answer(t, "GET"); res.StatusCode != 503 || body != "service unavailable\n" {
		t.Errorf("%d %q", res.StatusCode, body)
	}
	if n, err := io.Copy(io.Discard, w.dial(address)); n != 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d, %v", n, err)
	}
}

func TestShutdownLetsRequestsEnd(t *testing.T) {
	for _, protos := range [][]string{{"http/1.1"}, {"h2"}} {
		w := newTestbed(t)
		entered, release := make(chan struct{}), make(chan struct{})
		table := &Table{TLS: w.listenerTLS(protos...), Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/slow" {
				fmt.Fprint(rw, "begun ")
				_ = http.NewResponseController(rw).Flush()
				close(entered)
				<-release
			}
			fmt.Fprint(rw, "done")
		}))))}
		s, address := w.gateway(fixed(table))
		idle := w.browser()
		w.get(idle, "https://"+address)
		got := make(chan string, 1)
		browser := w.browser()
		go func() {
			res, err := browser.Get("https://" + address + "/slow")
			if err != nil {
				got <- err.Error()
				return
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			got <- string(b)
		}()
		<-entered
		down := make(chan error, 1)
		go func() { down <- s.Shutdown(t.Context()) }()
		eventually(t, "the idle connection is closed", func() bool { return s.Stats().Open == 1 })
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			t.Error("the server still accepts")
		}
		close(release)
		if b := <-got; b != "begun done" {
			t.Errorf("%q", b)
		}
		if err := <-down; err != nil || s.Stats().Open != 0 {
			t.Errorf("%v, %+v", err, s.Stats())
		}
	}
}

func TestShutdownDrainsUpgradesUntilItsContextEnds(t *testing.T) {
	w := newTestbed(t)
	s, address := w.plain(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stuck" {
			<-r.Context().Done()
			return
		}
		c, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}))))
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	c, _, err := websocket.Dial(t.Context(), "http://"+address, &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	stuck := make(chan error, 1)
	go func() {
		res, err := tr.RoundTrip(func() *http.Request { r, _ := http.NewRequest("GET", "http://"+address+"/stuck", nil); return r }())
		if err == nil {
			res.Body.Close()
			err = errors.New(res.Status)
		}
		stuck <- err
	}()
	eventually(t, "both are served", func() bool { return s.Stats().InFlight == 2 })
	ctx, cancel := context.WithCancel(t.Context())
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(ctx) }()
	eventually(t, "the server begins to close", func() bool { return s.intake.Closing() })
	for range 3 { // the server still answers
		if err := c.Write(t.Context(), websocket.MessageText, []byte("hi")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(t.Context()); err != nil || string(b) != "hi" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	cancel()
	if err := <-down; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if st := s.Stats(); st.Open != 0 || st.InFlight != 0 {
		t.Errorf("%+v", st)
	}
	if _, _, err := c.Read(t.Context()); err == nil {
		t.Error("the upgraded connection is open")
	}
	if err := <-stuck; err == nil {
		t.Error("the stuck request was answered")
	}
}

func TestRetiredPoolsServeLateRequests(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		w := newTestbed(t)
		release := make(chan struct{})
		back := w.back(p, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(rw).Flush()
			if r.URL.Path == "/slow" {
				<-release
			}
			fmt.Fprint(rw, "done")
		}), "h2", "http/1.1"))
		_, address := w.plain(back)
		res, err := w.browser().Get("http://" + address + "/slow")
		if err != nil {
			t.Fatal(err)
		}
		w.get(w.browser(), "http://"+address)
		back.Retire()
		open := func() uint64 { return back.Upstream().Status()[0].Open }
		eventually(t, "idle connections are closed", func() bool { return open() == 1 })
		if code, body := w.get(w.browser(), "http://"+address); code != 200 || body != "done" {
			t.Errorf("%d %q", code, body)
		}
		close(release)
		if b, err := io.ReadAll(res.Body); string(b) != "done" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		res.Body.Close()
		if p == backs.HTTP1 {
			eventually(t, "every connection is closed", func() bool { return open() == 0 })
		}
	}
}

func TestClientsThatLeaveDoNotAffectOthers(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.Auto, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(rw, r.Body)
		for range n {
			if _, err := rw.Write(make([]byte, 10000)); err != nil {
				return
			}
		}
	}), "h2", "http/1.1"))
	s, address := w.plain(back)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 40 {
				c, err := net.Dial("tcp", address)
				if err != nil {
					t.Error(err)
					return
				}
				fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n%s", strings.Repeat("x", []int{0, 1, 1999, 2000}[j%4]))
				if (i+j)%2 == 0 {
					_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
					_, _ = bufio.NewReader(c).ReadByte()
				}
				if (i+j)%3 == 0 {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
			}
		})
	}
	all.Wait()
	eventually(t, "every connection is gone", func() bool { st := s.Stats(); return st.Open == 0 && st.InFlight == 0 })
	if code, _ := w.get(w.browser(), "http://"+address); code != 200 {
		t.Errorf("afterward: %d", code)
	}
	if strings.Contains(w.log.String(), "[WARN]") {
		t.Errorf("a warning about the clients' behavior was logged:\n%s", firstLine(w.log.String(), "[WARN]"))
	}
	if back.Upstream().Status()[0].Failures != nil && len(back.Upstream().Status()[0].Failures) > 0 {
		t.Errorf("counted as a failure of the upstream: %v", back.Upstream().Status()[0].Failures)
	}
}

func firstLine(text, with string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, with) {
			return line
		}
	}
	return ""
}

// failing is a listener that is out of descriptors at first.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptSurvivesDescriptorExhaustion(t *testing.T) {
	ln := &failing{Listener: listen(t)}
	ln.left.Store(3)
	s := New(Options{Table: fixed(&Table{})})
	done := make(chan error, 1)
	go func() { done <- s.Serve(ln) }()
	res, err := http.Get("http://" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != ErrServerClosed {
		t.Error(err)
	}
	if err := s.Serve(listen(t)); err != ErrServerClosed {
		t.Error(err)
	}
}

func TestAPanicIsLoggedAndTheConnectionCutOff(t *testing.T) {
	w := newTestbed(t)
	calls := 0
	_, address := w.gateway(func() *Table {
		if calls++; calls == 2 {
			panic("boom")
		}
		return &Table{}
	})
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: a")
	if b, _ := io.ReadAll(c); len(b) != 0 {
		t.Errorf("%q", b)
	}
	eventually(t, "the log has the line", func() bool { return strings.Contains(w.log.String(), "panic=boom") })
}

func BenchmarkSmallRequest(b *testing.B) {
	w := newTestbed(b)
	s := New(Options{Table: fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = rw.Write(make([]byte, 1024))
	}))))})})
	c := w.dial(w.serve(s))
	_ = c.SetDeadline(time.Time{})
	b.ReportAllocs()
	for b.Loop() {
		c.send("GET / HTTP/1.1", "Host: a")
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	c.Close()
}
