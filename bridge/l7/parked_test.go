package l7

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
)

// goroutines matches the number of goroutines in a record of a profile.
var goroutines = regexp.MustCompile(`(?m)^(\d+) @ `)

// serving returns how many goroutines serve clients' connections of w's gateways.
func (w *testbed) serving() (n int) {
	var b strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&b, 1) // a write to memory cannot fail
	for record := range strings.SplitSeq(b.String(), "\n\n") {
		serves := strings.Contains(record, "(*front1).serve+") || strings.Contains(record, "(*front2).serve+")
		if count := goroutines.FindStringSubmatch(record); count != nil && serves && strings.Contains(record, strconv.Quote(w.label())) {
			i, _ := strconv.Atoi(count[1]) // the expression matches only digits
			n += i
		}
	}
	return n
}

func (w *testbed) allParked() bool { return w.serving() == 0 }

// needsEpoll skips a test on systems without epoll.
func needsEpoll(t *testing.T) {
	t.Helper()
	e, err := splice.New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Parked(nil, nil) == nil {
		t.Skip("without epoll, connections are not parked")
	}
}

func TestIdleClientsHaveNoGoroutine(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			w := newTestbed(t)
			// No time limit ends the wait for the rest of a request that this test looks at.
			table := &Table{Default: to(w.back(backs.HTTP1, w.server(echo))), HeaderReadTimeout: time.Hour, IdleTimeout: time.Hour}
			if secure {
				table.TLS = w.listenerTLS("http/1.1")
			}
			_, address := w.gateway(fixed(table))
			clients := make([]*rawConn, 50)
			for round := range 3 {
				for i := range clients {
					if round == 0 {
						clients[i] = w.dial(address)
						if secure {
							clients[i] = overTLS(w, clients[i])
						}
					}
					c := clients[i]
					c.send(fmt.Sprintf("GET /%d HTTP/1.1", i), "Host: a")
					if res, body := c.answer(t, "GET"); res.StatusCode != 200 || !strings.Contains(body, fmt.Sprintf("/%d by", i)) {
						t.Fatalf("%d %q", res.StatusCode, body)
					}
				}
				eventually(t, "every client is parked", w.allParked)
			}
			// A request that arrives in pieces wakes the connection once; a goroutine
			// then waits for the rest.
			c := clients[0]
			for _, piece := range []string{"G", "ET /pieces HTTP/1.1\r\nHo"} {
				io.WriteString(c, piece)
				eventually(t, "an engine carries the connection", func() bool { return w.serving() == 1 })
			}
			io.WriteString(c, "st: a\r\n\r\n") // the connection may be parked again at once
			if res, body := c.answer(t, "GET"); res.StatusCode != 200 || !strings.Contains(body, "/pieces by") {
				t.Errorf("%d %q", res.StatusCode, body)
			}
		})
	}
}

// A goroutine waits for a silent client's first bytes only briefly; then the
// connection is parked.
func TestSilentClientsAreParked(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	w := newTestbed(t)
	s, address := w.plain(w.back(backs.HTTP1, w.server(echo)))
	c := w.dial(address)
	eventually(t, "the connection is open and parked", func() bool { return s.Stats().Open == 1 && w.allParked() })
	for range 3 { // in quick succession, so that the connection is not parked in between
		c.send("GET / HTTP/1.1", "Host: a")
		if res, _ := c.answer(t, "GET"); res.StatusCode != 200 {
			t.Errorf("%d", res.StatusCode)
		}
	}
	eventually(t, "the connection is parked again", w.allParked)
}

func TestParkedClientsAreClosedInTime(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	w := newTestbed(t)
	const limit = 6 * time.Second
	s, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), IdleTimeout: limit}))
	c := w.dial(address)
	begun := time.Now()
	c.send("GET / HTTP/1.1", "Host: a")
	c.answer(t, "GET")
	eventually(t, "the connection is parked", w.allParked)
	if n := s.Stats().Open; n != 1 && time.Since(begun) < limit {
		t.Fatalf("%d connections open, want 1", n)
	}
	if n, err := io.Copy(io.Discard, c.r); n != 0 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if took := time.Since(begun); took < limit {
		t.Errorf("closed after %v", took)
	}
	c.Close()
	eventually(t, "the connection is removed", func() bool { return s.Stats().Open == 0 })
}

func TestParkedClientsThatDisconnectAreRemoved(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	for name, leave := range map[string]func(c net.Conn){
		"closed": func(c net.Conn) { c.Close() },
		"reset":  func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			s, address := w.plain(w.back(backs.HTTP1, w.server(echo)))
			for range 20 {
				c := w.dial(address)
				c.send("GET / HTTP/1.1", "Host: a")
				c.answer(t, "GET")
				eventually(t, "the connection is parked", w.allParked)
				leave(c.Conn)
			}
			eventually(t, "all connections are removed", func() bool { return s.Stats().Open == 0 })
		})
	}
}

func TestShutdownClosesParkedClients(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	w := newTestbed(t)
	s, address := w.plain(w.back(backs.HTTP1, w.server(echo)))
	var clients []*rawConn
	for range 20 {
		c := w.dial(address)
		c.send("GET / HTTP/1.1", "Host: a")
		c.answer(t, "GET")
		clients = append(clients, c)
	}
	eventually(t, "every client is parked", w.allParked)
	go clients[0].send("GET / HTTP/1.1", "Host: a") // either is correct: an answer, or a closed connection
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for _, c := range clients[1:] {
		if n, err := io.Copy(io.Discard, c.r); n != 0 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
}

// clients2 returns HTTP/2 clients, each with its own connection that has carried
// a request.
func (w *testbed) clients2(n int, address string) []*http.Client {
	w.Helper()
	var clients []*http.Client
	for range n {
		c := w.browser()
		w.echoed2(c, address)
		clients = append(clients, c)
	}
	return clients
}

func (w *testbed) echoed2(c *http.Client, address string) {
	w.Helper()
	if code, body := w.get(c, "https://"+address+"/x"); code != 200 || !strings.Contains(body, " /x by") {
		w.Fatalf("%d %q", code, body)
	}
}

func TestIdleClientsOfHTTP2HaveNoGoroutine(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	w := newTestbed(t)
	s, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), TLS: w.listenerTLS("h2")}))
	clients := w.clients2(20, address)
	for range 2 {
		eventually(t, "every client is parked", w.allParked)
		for _, c := range clients {
			w.echoed2(c, address)
		}
	}
	if n := s.Stats().Accepted; n != 20 {
		t.Errorf("%d connections, want one for each client", n)
	}
	eventually(t, "every client is parked", w.allParked)
	for _, c := range clients {
		c.CloseIdleConnections()
	}
	eventually(t, "all connections are removed", func() bool { return s.Stats().Open == 0 })
}

// A plaintext client may have been parked before it sent its first bytes, which
// reveal its protocol.
func TestSilentClientsThatSpeakHTTP2AreParked(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	w := newTestbed(t)
	s, address := w.plain(w.back(backs.HTTP1, w.server(echo)))
	silent := w.dial(address)
	eventually(t, "the connection is open and parked", func() bool { return s.Stats().Open == 1 && w.allParked() })
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return silent.Conn, nil }}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for range 2 {
		if code, body := w.get(client, "http://"+address+"/x"); code != 200 || !strings.Contains(body, " /x by") {
			t.Fatalf("%d %q", code, body)
		}
		eventually(t, "the connection is parked", w.allParked)
	}
	if n := s.Stats().Accepted; n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestParkedClientsOfHTTP2AreClosedInTime(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	w := newTestbed(t)
	const limit = 8 * time.Second
	s, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), TLS: w.listenerTLS("h2"), IdleTimeout: limit}))
	begun := time.Now()
	w.clients2(3, address)
	eventually(t, "every client is parked", w.allParked)
	if n := s.Stats().Open; n != 3 && time.Since(begun) < limit {
		t.Errorf("%d connections open, want 3", n)
	}
	eventually(t, "all connections are closed", func() bool { return s.Stats().Open == 0 })
}

func TestShutdownClosesParkedClientsOfHTTP2(t *testing.T) {
	t.Parallel()
	needsEpoll(t)
	for _, patient := range []bool{true, false} {
		t.Run(fmt.Sprintf("patient=%v", patient), func(t *testing.T) {
			w := newTestbed(t)
			s, address := w.gateway(fixed(&Table{Default: to(w.back(backs.HTTP1, w.server(echo))), TLS: w.listenerTLS("h2")}))
			w.clients2(20, address)
			eventually(t, "every client is parked", w.allParked)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if !patient {
				cancel()
			}
			if err := s.Shutdown(ctx); (err == nil) != patient {
				t.Error(err)
			}
			if n := s.Stats().Open; n != 0 {
				t.Errorf("%d connections open", n)
			}
		})
	}
}
