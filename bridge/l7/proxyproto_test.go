package l7

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// An announcedListener is a server's listener whose connections begin with a
// PROXY protocol header.
type announcedListener struct{ net.Listener }

type announcedConn struct {
	net.Conn
	source net.Addr
}

func (c announcedConn) RemoteAddr() net.Addr { return c.source }

func (l announcedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client, err := proxyproto.Read(c)
		if err == nil && client.Source != nil {
			return announcedConn{c, client.Source}, nil
		}
		c.Close()
	}
}

// announced starts an HTTPS server that receives PROXY protocol headers, and returns
// a Back to it. The server answers with the client's address and the number of the
// connection that carried the request.
func (w *testbed) announced(p backs.Protocol, v proxyproto.Version) (b *backs.Pools, open *atomic.Int64) {
	protos := map[backs.Protocol][]string{backs.Auto: {"h2", "http/1.1"}, backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[p]
	ln := listen(w)
	var made atomic.Int64
	open = new(atomic.Int64)
	type number struct{}
	srv := &http.Server{
		ErrorLog: w.logger(hclog.Trace).StandardLogger(nil),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s for %s on %d", r.RemoteAddr, r.Header.Get("X-Forwarded-For"), r.Context().Value(number{}))
		}),
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, number{}, made.Add(1))
		},
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Add(-1)
			}
		},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(tls.NewListener(announcedListener{ln}, w.serverTLS(protos...)))
	}()
	w.Cleanup(func() { srv.Close(); <-done })
	u := upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Logger: w.logger(hclog.Warn), ProxyProtocol: v, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: ln.Addr().String(), Stream: w.client(), HTTP: w.client(protos...)},
	}})
	return w.newBack(backs.Options{Upstream: u, Protocol: p, TLS: true}), open
}

func (w *testbed) trust(sources ...string) *proxyproto.Trust {
	trust, bad := proxyproto.NewTrust(sources)
	if bad != nil {
		w.Fatal(bad)
	}
	return trust
}

// Requests of a client's connection use upstream connections that announce that
// client and end with it. Two clients never share an upstream connection.
func TestAnnouncedClientsShareNoConnection(t *testing.T) {
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2, backs.Auto} {
		t.Run(fmt.Sprint(p), func(t *testing.T) {
			w := newTestbed(t)
			back, open := w.announced(p, proxyproto.V2)
			_, address := w.gateway(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1"), Default: to(back)}))
			var clients [3]*rawConn
			var numbers [3]string
			for i := range clients {
				clients[i] = w.dial(address)
				fmt.Fprintf(clients[i], "PROXY TCP4 192.0.2.%d 198.51.100.2 %d 80\r\n", i/2, 1000+i) // two clients have the same address
			}
			for range 3 {
				for i, c := range clients {
					c.send("GET / HTTP/1.1", "Host: x")
					_, body := c.answer(t, "GET")
					client, number, _ := strings.Cut(body, " on ")
					if want := fmt.Sprintf("192.0.2.%d:%d for 192.0.2.%d", i/2, 1000+i, i/2); client != want {
						t.Errorf("%q, want %q", client, want)
					}
					if numbers[i] != "" && numbers[i] != number {
						t.Errorf("client %d came over connections %s and %s", i, numbers[i], number)
					}
					numbers[i] = number
				}
			}
			if numbers[0] == numbers[1] || numbers[1] == numbers[2] || numbers[0] == numbers[2] {
				t.Errorf("clients shared connections: %v", numbers)
			}
			clients[0].Close()
			eventually(t, "its connection to the upstream is closed", func() bool { return open.Load() == 2 })
			if n := back.Kept(back.Upstream().Endpoints()[0]); n != 2 {
				t.Errorf("%d pools are kept", n)
			}
		})
	}
}

// The upstream connection of an upgraded request announces the client too.
func TestUpgradesAreAnnounced(t *testing.T) {
	w := newTestbed(t)
	ln := listen(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := announcedListener{ln}.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		tc := tls.Server(c, w.serverTLS())
		if _, err := http.ReadRequest(bufio.NewReader(tc)); err != nil {
			return
		}
		fmt.Fprintf(tc, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nhello %s", c.RemoteAddr())
		io.Copy(io.Discard, tc)
	}()
	u := upstream.New(upstream.Options{Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, ProxyProtocol: proxyproto.V2, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: ln.Addr().String(), Stream: w.client(), HTTP: w.client("h2", "http/1.1")},
	}})
	_, address := w.gateway(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1"), Default: to(w.newBack(backs.Options{Upstream: u, TLS: true}))}))
	c := w.dial(address)
	io.WriteString(c, "PROXY TCP4 192.0.2.1 198.51.100.2 12345 80\r\n")
	c.send("GET / HTTP/1.1", "Host: x", "Connection: Upgrade", "Upgrade: test")
	res, err := http.ReadResponse(c.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v, %v", res, err)
	}
	want := "hello 192.0.2.1:12345"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	c.Close()
	<-served
}

// Clients that connect directly are announced with their own addresses.
func TestDirectClientsAreAnnounced(t *testing.T) {
	w := newTestbed(t)
	back, _ := w.announced(backs.HTTP1, proxyproto.V1)
	_, address := w.gateway(fixed(&Table{Default: to(back)}))
	c := w.dial(address)
	c.send("GET / HTTP/1.1", "Host: x")
	if _, body := c.answer(t, "GET"); !strings.HasPrefix(body, c.LocalAddr().String()+" for 127.0.0.1 ") {
		t.Errorf("%q", body)
	}
}

// A connection that does not begin with a PROXY protocol header, or comes from an
// untrusted peer, gets no answer.
func TestRequestsNotAnnounced(t *testing.T) {
	const request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, test := range map[string]struct {
		trusted, sent string
		reason        proxyproto.Reason
	}{
		"untrusted":   {"192.0.2.0/24", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n" + request, proxyproto.Untrusted},
		"unannounced": {"127.0.0.1", request, proxyproto.Missing},
		"malformed":   {"127.0.0.1", "PROXY TCP4 me you 1 2\r\n" + request, proxyproto.Malformed},
		"stalled":     {"127.0.0.1", "PROXY TCP4 ", proxyproto.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			table := &Table{ProxyProtocol: w.trust(test.trusted), HandshakeTimeout: time.Hour}
			if test.reason == proxyproto.Timeout {
				table.HandshakeTimeout = 50 * time.Millisecond
			}
			s, address := w.gateway(fixed(table))
			c := w.dial(address)
			io.WriteString(c, test.sent) // may fail on a closed connection
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("answered %q", got)
			}
			eventually(t, "the outcome is counted", func() bool { st := s.Stats(); return st.Open == 0 && st.Unannounced[test.reason] == 1 })
		})
	}
}

func TestLimitPerAnnouncedClient(t *testing.T) {
	w := newTestbed(t)
	s, address := w.gateway(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1"), MaxPerClient: 1}))
	as := func(ip string) *rawConn {
		c := w.dial(address)
		fmt.Fprintf(c, "PROXY TCP4 %s 198.51.100.2 1 2\r\n", ip)
		c.send("GET / HTTP/1.1", "Host: x")
		return c
	}
	one := as("192.0.2.1")
	one.answer(t, "GET")
	as("192.0.2.2").answer(t, "GET")
	if got, _ := io.ReadAll(as("192.0.2.1")); len(got) > 0 {
		t.Errorf("a second connection was answered %q", got)
	}
	one.Close()
	eventually(t, "its place is free", func() bool { return s.Stats().Open == 1 })
	as("192.0.2.1").answer(t, "GET")
}

// A drain does not wait long for connections that have not sent a PROXY
// protocol header.
func TestShutdownClosesUnannouncedConnections(t *testing.T) {
	w := newTestbed(t)
	s, address := w.gateway(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1"), HandshakeTimeout: time.Hour}))
	s.firstRequest = 10 * time.Millisecond
	c := w.dial(address)
	io.WriteString(c, "PROXY ")
	eventually(t, "the connection is accepted", func() bool { return s.Stats().Open == 1 })
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if got, _ := io.ReadAll(c); len(got) > 0 {
		t.Errorf("answered %q", got)
	}
}

// Clients come and go while their requests are in progress.
func TestAnnouncedClientsThatLeave(t *testing.T) {
	w := newTestbed(t)
	back, open := w.announced(backs.Auto, proxyproto.V1)
	s, address := w.gateway(fixed(&Table{ProxyProtocol: w.trust("127.0.0.1"), Default: to(back)}))
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			c := w.dial(address)
			defer c.Close()
			fmt.Fprintf(c, "PROXY TCP4 192.0.2.1 198.51.100.2 %d 80\r\n", 1000+i)
			c.send("GET / HTTP/1.1", "Host: x")
			if i%2 == 0 {
				c.answer(t, "GET")
			}
		})
	}
	clients.Wait()
	eventually(t, "no request or connection is left", func() bool { return s.Stats().Open == 0 && open.Load() == 0 })
	if n := back.Kept(back.Upstream().Endpoints()[0]); n != 0 {
		t.Errorf("%d pools are left", n)
	}
}
