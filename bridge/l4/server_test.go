package l4_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/logtest"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A connection keeps the table under which it was accepted.
func TestTableIsLoadedOncePerConnection(t *testing.T) {
	one, two := listen(t, "tcp"), listen(t, "tcp")
	var table atomic.Pointer[l4.Table]
	table.Store(&l4.Table{Default: to(group(plain(one)))})
	g := open(t, "tcp", l4.Options{Table: table.Load})

	old := g.dial(t, nil)
	oldEnd := accept(t, one, nil)
	table.Store(&l4.Table{Default: to(group(plain(two)))})
	young := g.dial(t, nil)
	youngEnd := accept(t, two, nil)
	old.Send(t, "old")
	oldEnd.Want(t, "old")
	young.Send(t, "young")
	youngEnd.Want(t, "young")

	table.Store(nil)
	g.wantRefused(t)
}

func TestConnectionWithoutUpstreamIsClosed(t *testing.T) {
	for name, table := range map[string]*l4.Table{
		"no default":                {},
		"no upstream takes traffic": {Default: &l4.Target{}},
		"no endpoint":               {Default: to(group())},
	} {
		t.Run(name, func(t *testing.T) {
			serve(t, table).wantRefused(t)
		})
	}
}

func TestRoutesBySNI(t *testing.T) {
	p := newPKI(t)
	lns := map[string]net.Listener{}
	rule := func(name string, hosts ...string) route.Rule[*l4.Target] {
		lns[name] = listen(t, "tcp")
		target := to(group(plain(lns[name])))
		target.Route = name
		return route.Rule[*l4.Target]{Name: name, Hosts: hosts, Value: target}
	}
	routes, err := route.New([]route.Rule[*l4.Target]{rule("a", "a.test"), rule("wild", "*.b.test")})
	if err != nil {
		t.Fatal(err)
	}
	lns["default"] = listen(t, "tcp")
	g := serve(t, &l4.Table{
		TLS:     p.listener(t, "a.test", "*.b.test"),
		Routes:  routes,
		Default: to(group(plain(lns["default"]))),
	})
	for sni, want := range map[string]string{
		"a.test": "a", "A.Test": "a", "x.b.test": "wild", "b.test": "default", "elsewhere.test": "default", "": "default", "127.0.0.1": "default",
	} {
		t.Run(sni, func(t *testing.T) {
			c := g.dial(t, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
			handshakes := make(chan error, 1)
			go func() { handshakes <- c.Conn.(*tls.Conn).Handshake() }()
			far := accept(t, lns[want], nil)
			if err := <-handshakes; err != nil {
				t.Fatal(err)
			}
			c.Send(t, "hello")
			far.Want(t, "hello")
		})
	}
}

func TestFailoverBeforeTheFirstByte(t *testing.T) {
	p := newPKI(t)
	wrong, right := listen(t, "tcp"), listen(t, "tcp")
	echo(t, wrong, p.server(t, "wrong.test"))
	echo(t, right, p.server(t, "upstream.test"))
	o := p.upstream(t, "upstream.test")
	gone := over(t, wrong, o)
	gone.Address = sockettest.Free(t)
	u := group(gone, over(t, wrong, o), over(t, right, o))
	g := serve(t, &l4.Table{Default: to(u)})
	for range 6 {
		c := g.dial(t, nil)
		c.WantEcho(t, "hello")
		c.CloseWrite()
		c.WantEnd(t, "", clean)
	}
	if s := u.Status(); s[2].Made != 6 || s[0].Made+s[1].Made != 0 || g.Stats().DialFailures != 0 {
		t.Errorf("status %+v", s)
	}
}

// If the upstream fails verification, the listener closes the client's connection, the
// upstream gets none of the client's bytes, and the log says why.
func TestUpstreamThatFailsVerification(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	for _, test := range []struct {
		name   string
		server *tls.Config // nil: plaintext
		client certs.ClientOptions
		reason certs.Reason
	}{
		{"unknown CA", other.server(t, "upstream.test"), p.upstream(t, "upstream.test"), certs.ReasonUnknownCA},
		{"wrong name", p.server(t, "other.test"), p.upstream(t, "upstream.test"), certs.ReasonNameMismatch},
		{"no TLS", nil, p.upstream(t, "upstream.test"), certs.ReasonNotTLS},
	} {
		t.Run(test.name, func(t *testing.T) {
			ln := listen(t, "tcp")
			u := group(over(t, ln, test.client))
			var log logtest.Buffer
			table := &l4.Table{Default: to(u)}
			g := open(t, "tcp", l4.Options{Listener: "edge", Table: func() *l4.Table { return table }, Logger: debugLog(&log)})
			c := g.dial(t, nil)
			far := accept(t, ln, test.server)
			go far.Write([]byte("HTTP/1.1 200 OK\r\n\r\nsecret"))
			c.WantEnd(t, "", reset)
			g.Shutdown(t.Context())
			if s := u.Status()[0]; s.Failures[test.reason] != 1 || g.Stats().DialFailures != 1 {
				t.Errorf("status %+v", s)
			}
			for _, want := range []string{string(test.reason), `"listener":"edge"`, `"ended":"upstream unreachable"`} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("log lacks %s: %s", want, log.String())
				}
			}
			far.Close()
		})
	}
}

// A TLS 1.3 server refuses a client certificate after the client's side of the
// handshake has completed: the error shows on the first read.
func TestLateRefusalOfTheClientCertificate(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	for name, test := range map[string]struct {
		cert   *certs.Certificate
		reason certs.Reason
	}{
		"no certificate": {nil, certs.ReasonClientCertificateRequired},
		"unknown CA":     {certstest.Certificate(t, other.ca.Client(t, "client")), certs.ReasonClientCertificateRejected},
	} {
		t.Run(name, func(t *testing.T) {
			ln := listen(t, "tcp")
			config := p.server(t, "upstream.test")
			config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, p.ca.Pool()
			config.MinVersion = tls.VersionTLS13
			echo(t, ln, config)
			o := p.upstream(t, "upstream.test")
			o.Certificate = test.cert
			u := group(over(t, ln, o))
			g := serve(t, &l4.Table{Default: to(u)})
			g.wantRefused(t)
			g.Shutdown(t.Context())
			if s := u.Status()[0]; s.Failures[test.reason] != 1 || s.Health != upstream.Down {
				t.Errorf("status %+v", s)
			}
		})
	}
}

func TestUpstreamSessionsAreResumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			p := newPKI(t)
			ln := listen(t, "tcp")
			config := p.server(t, "upstream.test")
			config.MaxVersion = version
			u := group(over(t, ln, p.upstream(t, "upstream.test")))
			g := serve(t, &l4.Table{Default: to(u)})
			for i := range 3 {
				c := g.dial(t, nil)
				far := accept(t, ln, config)
				c.Send(t, "x")
				far.Want(t, "x")
				if resumed := far.Conn.(*tls.Conn).ConnectionState().DidResume; resumed != (i > 0) {
					t.Errorf("connection %d resumed: %v", i, resumed)
				}
				far.Send(t, "y")
				far.CloseWrite()
				c.WantEnd(t, "y", clean)
				c.Close()
			}
			if s := u.Status()[0]; s.HandshakesFull != 1 || s.HandshakesResumed != 2 {
				t.Errorf("full %d, resumed %d", s.HandshakesFull, s.HandshakesResumed)
			}
		})
	}
}

func TestClientSessionsAreResumedAndCounted(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Default: to(group(plain(ln)))})
	config := p.client("gate.test")
	config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		c := g.dial(t, config)
		c.WantEcho(t, "x")
		c.CloseWrite()
		c.WantEnd(t, "", clean)
	}
	if s := g.Stats(); s.HandshakesFull != 1 || s.HandshakesResumed != 1 || s.Accepted != 2 {
		t.Errorf("%+v", s)
	}
}

func TestLimits(t *testing.T) {
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	from := func(t *testing.T, g *gate, ip string) *peer {
		raw, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", g.address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		return splicetest.NewPeer(raw, nil)
	}
	t.Run("in all", func(t *testing.T) {
		g := serve(t, &l4.Table{Default: to(group(plain(ln))), MaxConnections: 2})
		a, b := g.dial(t, nil), g.dial(t, nil)
		a.WantEcho(t, "a")
		b.WantEcho(t, "b")
		g.wantRefused(t)
		a.CloseWrite()
		a.WantEnd(t, "", clean)
		eventually(t, "a's place is free", func() bool { return g.Stats().Open == 1 })
		g.dial(t, nil).WantEcho(t, "c")
		if s := g.Stats(); s.Rejected != 1 || s.Accepted != 3 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("per client", func(t *testing.T) {
		g := serve(t, &l4.Table{Default: to(group(plain(ln))), MaxPerClient: 1})
		a := from(t, g, "127.0.0.1")
		a.WantEcho(t, "a")
		g.wantRefused(t)
		from(t, g, "127.0.0.2").WantEcho(t, "b")
		a.CloseWrite()
		a.WantEnd(t, "", clean)
		eventually(t, "a's place is free", func() bool { return g.Stats().Open == 1 })
		from(t, g, "127.0.0.1").WantEcho(t, "c")
	})
	hourly := func(n int) limit.Rate { return limit.Rate{Count: n, Period: time.Hour} }
	t.Run("the rate of all clients", func(t *testing.T) {
		g := serve(t, &l4.Table{Default: to(group(plain(ln))), Rate: hourly(2)})
		for range 2 {
			g.dial(t, nil).WantEcho(t, "a")
		}
		g.wantRefused(t)
		g.wantRefused(t)
		if s := g.Stats(); s.Rejected != 2 || s.Accepted != 2 || s.Limited[limit.OfRate] != 2 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the rate per client", func(t *testing.T) {
		g := serve(t, &l4.Table{Default: to(group(plain(ln))), Rate: hourly(3), RatePerClient: hourly(2)})
		for range 2 {
			g.dial(t, nil).WantEcho(t, "a")
		}
		for range 3 { // these do not spend the rate of other clients
			g.wantRefused(t)
		}
		from(t, g, "127.0.0.2").WantEcho(t, "b")
		if s := g.Stats(); s.Rejected != 3 || s.Accepted != 3 || s.Limited[limit.OfRatePerClient] != 3 || s.Limited[limit.OfRate] != 0 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the rate per announced client", func(t *testing.T) {
		g := serve(t, &l4.Table{Default: to(group(plain(ln))), RatePerClient: hourly(1), ProxyProtocol: trust(t, "127.0.0.1")})
		for i, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			c := g.dial(t, nil)
			c.Send(t, "PROXY TCP4 "+client+" 198.51.100.2 12345 443\r\n")
			if i < 2 || i == 4 {
				c.WantEcho(t, "a")
			} else {
				c.WantEnd(t, "", reset)
			}
		}
		eventually(t, "the connections are counted", func() bool { s := g.Stats(); return s.Rejected == 2 && s.Limited[limit.OfRatePerClient] == 2 })
	})
	t.Run("the rate per client does not apply to unix sockets", func(t *testing.T) {
		table := &l4.Table{Default: to(group(plain(ln))), MaxPerClient: 1, RatePerClient: hourly(1)}
		g := open(t, "unix", l4.Options{Table: func() *l4.Table { return table }})
		for range 3 {
			g.dial(t, nil).WantEcho(t, "x")
		}
	})
}

func TestShutdownDrains(t *testing.T) {
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	g := serve(t, &l4.Table{Default: to(group(plain(ln)))})
	c := g.dial(t, nil)
	c.WantEcho(t, "before")
	g.StopAccepting()
	down := make(chan error, 1)
	go func() { down <- g.Shutdown(context.Background()) }()
	if conn, err := net.Dial("tcp", g.address); err == nil {
		conn.Close()
		t.Error("still accepting")
	}
	c.WantEcho(t, "while draining")
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v with a connection open", err)
	default:
	}
	c.CloseWrite()
	c.WantEnd(t, "", clean)
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	const n = uint64(len("before") + len("while draining"))
	if st := g.Stats(); st.BytesToUpstream != n || st.BytesToClient != n {
		t.Errorf("counted %d to the upstream and %d to the client, want %d", st.BytesToUpstream, st.BytesToClient, n)
	}
	if err := g.Serve(listen(t, "tcp")); err != l4.ErrServerClosed {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

// When its context ends, Shutdown cuts every connection, in any state.
func TestShutdownCuts(t *testing.T) {
	p := newPKI(t)
	ln, silent := listen(t, "tcp"), listen(t, "tcp")
	echo(t, ln, nil)
	for name, test := range map[string]struct {
		table *l4.Table
		wait  func(*peer)
	}{
		"carrying bytes": {&l4.Table{Default: to(group(plain(ln)))}, func(c *peer) { c.WantEcho(t, "x") }},
		"in the handshake with the client": {&l4.Table{TLS: p.listener(t, "x.test"), HandshakeTimeout: time.Hour},
			func(*peer) {}},
		"while the endpoint is dialed": {&l4.Table{Default: to(group(over(t, silent, p.upstream(t, "x.test"))))},
			func(*peer) { accept(t, silent, nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			g := serve(t, test.table)
			c := g.dial(t, nil)
			test.wait(c)
			eventually(t, "accepted", func() bool { return g.Stats().Open == 1 })
			ctx, cancel := context.WithCancel(t.Context())
			down := make(chan error, 1)
			go func() { down <- g.Shutdown(ctx) }()
			cancel()
			c.WantEnd(t, "", reset)
			if err := <-down; err != context.Canceled {
				t.Errorf("Shutdown: %v", err)
			}
			if s := g.Stats(); s.Open != 0 {
				t.Errorf("%d still open", s.Open)
			}
		})
	}
}

func TestShutdownWithoutConnectionsIsClean(t *testing.T) {
	for range 100 {
		if err := l4.New(l4.Options{}).Shutdown(canceled()); err != nil {
			t.Fatal(err)
		}
	}
}

// hello returns the bytes of a client's first flight.
func hello(t *testing.T) []byte {
	a, b := net.Pipe()
	go func() {
		tls.Client(a, &tls.Config{ServerName: "gate.test", CurvePreferences: []tls.CurveID{tls.X25519}}).Handshake()
		a.Close()
	}()
	defer b.Close()
	p := make([]byte, 4096)
	n, err := b.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// A client that stalls at any byte of its hello is closed in time.
func TestStalledHandshakes(t *testing.T) {
	p := newPKI(t)
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), HandshakeTimeout: 200 * time.Millisecond})
	whole := hello(t)
	var clients sync.WaitGroup
	for n := range len(whole) + 1 {
		c := g.dial(t, nil)
		clients.Go(func() {
			c.Write(whole[:n])
			io.Copy(io.Discard, c)
			c.Close()
		})
	}
	clients.Wait()
	eventually(t, "all connections have ended", func() bool { return g.Stats().Open == 0 })
	if f := g.Stats().HandshakeFailures[certs.ReasonHandshakeTimeout]; f != uint64(len(whole)+1) {
		t.Errorf("%d handshakes timed out, want %d", f, len(whole)+1)
	}
}

func TestGarbageToATLSListener(t *testing.T) {
	p := newPKI(t)
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test")})
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x04\x01\xff\xff\xff",
		"\x80\x2e\x01\x00\x02", "\x15\x03\x01\x00\x02\x02\x28", strings.Repeat("\x00", 1000), strings.Repeat("\xff", 100000),
	} {
		c := g.dial(t, nil)
		c.Write([]byte(garbage))
		c.CloseWrite()
		io.Copy(io.Discard, c) // reads at most an alert, and the end
	}
	eventually(t, "all connections have ended", func() bool { s := g.Stats(); return s.Accepted == 8 && s.Open == 0 })
	total := uint64(0)
	for _, n := range g.Stats().HandshakeFailures {
		total += n
	}
	if s := g.Stats(); total != 8 || s.HandshakeFailures[certs.ReasonNotTLS] < 3 || s.HandshakesFull != 0 {
		t.Errorf("%+v", s)
	}
}

// An exhaustedListener is a listener in a process without free descriptors.
type exhaustedListener struct {
	net.Listener
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func (l *exhaustedListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Err: err}
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *exhaustedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func TestAcceptBacksOff(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED} {
		t.Run(errno.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := &exhaustedListener{errs: make(chan error), closed: make(chan struct{})}
				var log logtest.Buffer
				s := l4.New(l4.Options{Table: func() *l4.Table { return nil }, Logger: debugLog(&log)})
				served := make(chan error, 1)
				go func() { served <- s.Serve(ln) }()
				ln.errs <- errno
				for _, want := range []int{5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
					begin := time.Now()
					ln.errs <- errno
					if waited := time.Since(begin).Milliseconds(); waited != int64(want) {
						t.Errorf("waited %dms, want %d", waited, want)
					}
				}
				if n := strings.Count(log.String(), "cannot accept"); n != 1 {
					t.Errorf("%d warnings", n)
				}
				begin := time.Now()
				s.Shutdown(context.Background()) // also ends the wait
				if err := <-served; err != l4.ErrServerClosed || time.Since(begin) != 0 {
					t.Errorf("Serve: %v, after %v", err, time.Since(begin))
				}
			})
		})
	}
}

func TestServeReturnsPermanentErrors(t *testing.T) {
	ln := &exhaustedListener{errs: make(chan error, 1), closed: make(chan struct{})}
	ln.errs <- syscall.EINVAL
	if err := l4.New(l4.Options{}).Serve(ln); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("Serve: %v", err)
	}
	<-ln.closed
}

// A recordingListener sends the connections it accepts to conns.
type recordingListener struct {
	net.Listener
	conns chan *net.TCPConn
}

func (l *recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.conns <- c.(*net.TCPConn)
	}
	return c, err
}

func TestClientSocketOptions(t *testing.T) {
	far := listen(t, "tcp")
	echo(t, far, nil)
	table := &l4.Table{Default: to(group(plain(far)))}
	s := l4.New(l4.Options{Table: func() *l4.Table { return table }})
	ln := &recordingListener{listen(t, "tcp"), make(chan *net.TCPConn, 1)}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	g := &gate{Server: s, network: "tcp", address: ln.Addr().String()}
	c := g.dial(t, nil)
	c.WantEcho(t, "x")
	raw, err := (<-ln.conns).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		noDelay, _ := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
		keepAlive, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE)
		if noDelay != 1 || keepAlive != 1 {
			t.Errorf("TCP_NODELAY %d, SO_KEEPALIVE %d, want both", noDelay, keepAlive)
		}
	})
	s.Shutdown(canceled())
	<-served
}
