package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/policy"
)

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		if scheme == "https" {
			t.Skip("the same above TLS")
		}
		table.Default = to(w.back(backs.HTTP1, w.server(echo)))
		_, address := w.gateway(fixed(table))
		c := w.dial(address)
		var all strings.Builder
		for i := range 100 {
			if i%3 == 0 {
				fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", i)
			} else {
				fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
			}
		}
		go func() { _, _ = io.WriteString(c, all.String()) }()
		for i := range 100 {
			if res, body := c.answer(t, "GET"); res.StatusCode != 200 || !strings.Contains(body, fmt.Sprintf(" /%d by ", i)) {
				t.Fatalf("answer %d: %d %q", i, res.StatusCode, body)
			}
		}
	})
}

func TestHTTP10(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/streamed" {
			_ = http.NewResponseController(rw).Flush() // makes the length unknown
		}
		fmt.Fprint(rw, "hello")
	})))
	_, address := w.plain(back)
	c := w.dial(address)
	for range 3 {
		c.send("GET / HTTP/1.0", "Host: a", "Connection: keep-alive")
		if res, body := c.answer(t, "GET"); res.StatusCode != 200 || body != "hello" || res.Close || res.Header.Get("Connection") != "keep-alive" {
			t.Fatalf("%d %q %v", res.StatusCode, body, res.Header)
		}
	}
	c.send("GET /streamed HTTP/1.0", "Host: a", "Connection: keep-alive") // the response must end with the connection
	if res, body := c.answer(t, "GET"); body != "hello" || !res.Close || len(res.TransferEncoding) > 0 {
		t.Errorf("%q %v %v", body, res.Header, res.TransferEncoding)
	}
	c = w.dial(address)
	c.send("GET / HTTP/1.0", "Host: a")
	if res, body := c.answer(t, "GET"); body != "hello" || !res.Close {
		t.Errorf("%q %v", body, res.Header)
	}
	if _, err := io.Copy(io.Discard, c.r); err != nil {
		t.Error(err)
	}
}

func TestPriorKnowledgeOfHTTP2OnAPlaintextPort(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.server(echo)))
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	for range 3 {
		res, err := (&http.Client{Transport: tr}).Post("http://"+address+"/x", "text/plain", strings.NewReader("hello"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.ProtoMajor != 2 || !strings.HasSuffix(string(body), "/x by gateway: hello") {
			t.Errorf("%s %q", res.Proto, body)
		}
	}
	if code, _ := w.get(w.browser(), "http://"+address); code != 200 {
		t.Errorf("HTTP/1.1 beside it: %d", code)
	}
}

// An upstream may close an idle connection at any time. No client notices.
func TestConnectionsClosedWhileIdleAreNotReused(t *testing.T) {
	w := newTestbed(t)
	closed := make(chan bool, 1000)
	back := w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
		c.Close()
		closed <- true
	}))
	_, address := w.plain(back)
	c := w.dial(address)
	for i := range 40 {
		if i%2 == 0 {
			c.send("GET / HTTP/1.1", "Host: a")
		} else {
			fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
		}
		if res, body := c.answer(t, "GET"); res.StatusCode != 200 || body != "good" {
			t.Fatalf("%d %q: %s", res.StatusCode, body, w.log.String())
		}
		<-closed
	}
}

// Unsolicited bytes from an upstream are not mistaken for a response.
func TestConnectionsWithUnsolicitedBytesAreNotReused(t *testing.T) {
	w := newTestbed(t)
	results := make(chan bool, 100)
	back := w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON")
			results <- true
		}
	}))
	_, address := w.plain(back)
	for range 30 {
		c := w.dial(address)
		c.send("GET / HTTP/1.1", "Host: a")
		if _, body := c.answer(t, "GET"); body != "good" {
			t.Fatalf("%q", body)
		}
		<-results
		c.Close()
	}
}

// The gateway notices a client that closes its connection while the upstream
// prepares the response, in plaintext and in every version of TLS.
func TestClientHangUpIsDetected(t *testing.T) {
	for _, version := range []uint16{0, tls.VersionTLS12, tls.VersionTLS13} {
		w := newTestbed(t)
		entered, left := make(chan bool, 1), make(chan bool, 1)
		table := &Table{Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			entered <- true
			<-r.Context().Done()
			left <- true
		}))))}
		if version != 0 {
			table.TLS = w.listenerTLS("http/1.1")
		}
		s, address := w.gateway(fixed(table))
		c := w.dial(address)
		if version != 0 {
			c.Conn = tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", MaxVersion: version})
		}
		c.send("GET / HTTP/1.1", "Host: a")
		<-entered
		c.Close()
		select {
		case <-left:
		case <-time.After(testTimeout):
			t.Errorf("%s: the gateway did not notice", tls.VersionName(version))
		}
		eventually(t, "the outcome is counted", func() bool { st := s.Stats(); return st.Requests[policy.StatusClientGone] == 1 && st.Open == 0 })
	}
}

// The first requests wait until the endpoint has chosen a protocol. They then share
// one HTTP/2 connection; an endpoint that chooses HTTP/1.1 delays no request.
func TestFirstRequestsShareAHandshake(t *testing.T) {
	for _, protos := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}} {
		w := newTestbed(t)
		var at atomic.Int64
		all := make(chan bool)
		back := w.back(backs.Auto, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if at.Add(1) == 20 {
				close(all) // all requests are served at once
			}
			<-all
		}), protos...))
		_, address := w.plain(back)
		var clients sync.WaitGroup
		for range 20 {
			browser := w.browser()
			clients.Go(func() {
				res, err := browser.Get("http://" + address)
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
				if res.StatusCode != 200 {
					t.Errorf("%d: %s", res.StatusCode, w.log.String())
				}
			})
		}
		clients.Wait()
		want := uint64(20)
		if protos[0] == "h2" {
			want = 1
		}
		if n := back.Upstream().Status()[0].Made; n != want {
			t.Errorf("%v: %d connections", protos, n)
		}
	}
}

// An idle client costs a descriptor and its connection's state.
func TestIdleClientsAreCheap(t *testing.T) {
	if testing.Short() || alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	w := newTestbed(t)
	const clients, bound = 1000, 5 << 10
	_, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo)))}))
	inUse := func() uint64 {
		var m runtime.MemStats
		for range 3 { // each collection shrinks stacks
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	warm := w.dial(address)
	warm.send("GET / HTTP/1.1", "Host: a")
	warm.answer(t, "GET")
	before := inUse()
	conns := make([]net.Conn, clients)
	buf := make([]byte, 4096)
	for i := range conns {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(testTimeout))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), "HTTP/1.1 200") {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		conns[i] = c
	}
	each := (inUse() - before) / clients // includes the client's side
	if t.Logf("%d bytes each", each); each > bound {
		t.Errorf("%d bytes for each idle client, want at most %d", each, bound)
	}
}
