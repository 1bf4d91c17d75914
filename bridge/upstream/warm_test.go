package upstream_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A warmServer echoes over TLS, and can send data on every connection.
type warmServer struct {
	ca       *certstest.CA
	addr     string
	accepted atomic.Int64

	mu    sync.Mutex
	conns map[*tls.Conn]struct{} // connections with a completed handshake
}

func newWarmServer(t *testing.T, change func(*tls.Config)) *warmServer {
	s := &warmServer{ca: certstest.NewCA(t), conns: map[*tls.Conn]struct{}{}}
	config := &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, s.ca.Server(t, "up.test"))}}
	if change != nil {
		change(config)
	}
	s.addr = listen(t, "tcp", func(raw net.Conn) {
		s.accepted.Add(1)
		c := tls.Server(raw, config)
		if c.Handshake() != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = struct{}{}
		s.mu.Unlock()
		io.Copy(c, c)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}).String()
	return s
}

// open returns the number of the server's connections.
func (s *warmServer) open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// each runs f on every connection.
func (s *warmServer) each(do func(*tls.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}

func (s *warmServer) client(t *testing.T) certs.ClientOptions {
	return certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{s.ca.Trust(t)}}
}

// warm returns an upstream of servers with the given number of warm
// connections each.
func warm(t *testing.T, o upstream.Options, servers ...*warmServer) *upstream.Upstream {
	t.Helper()
	o.Name = "up"
	for _, s := range servers {
		o.Endpoints = append(o.Endpoints, upstream.EndpointOptions{Network: "tcp", Address: s.addr, Stream: newClient(t, s.client(t))})
	}
	return start(t, upstream.New(o))
}

func start(t *testing.T, u *upstream.Upstream) *upstream.Upstream {
	u.Start()
	t.Cleanup(u.Retire)
	return u
}

func eventually(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true in time: %s", condition)
		}
	}
}

// ready waits until each endpoint has the given number of warm connections.
func ready(t *testing.T, u *upstream.Upstream, n uint64) {
	t.Helper()
	eventually(t, "the connections are ready", func() bool {
		for _, s := range u.Status() {
			if s.Warm.Ready != n {
				return false
			}
		}
		return true
	})
}

// stream dials for a splice.
func stream(t *testing.T, u *upstream.Upstream) net.Conn {
	t.Helper()
	conn, _, err := u.Dial(t.Context(), upstream.Stream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// echoed sends text and reads it back, as a splice does.
func echoed(conn net.Conn, text string) error {
	sock := socket.Of(conn)
	sock.Stream(new(socket.Pool))
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	for n := 0; n < len(got); {
		m, err := conn.Read(got[n:])
		n += m
		if errors.Is(err, socket.ErrWouldBlock) {
			err = sock.Fill()
		}
		if err != nil {
			return err
		}
	}
	if string(got) != text {
		return errors.New("echo of another text: " + string(got))
	}
	return nil
}

func TestAWarmConnectionIsUsedAndReplaced(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			s := newWarmServer(t, func(c *tls.Config) { c.MaxVersion = version })
			u := warm(t, upstream.Options{Warm: 3}, s)
			ready(t, u, 3)
			if st := only(t, u); st.Health != upstream.Up || st.Open != 3 || st.Made != 3 || s.accepted.Load() != 3 {
				t.Errorf("before the first client: %+v, accepted %d", st, s.accepted.Load())
			}
			for i := range uint64(5) {
				conn := stream(t, u)
				if err := echoed(conn, "first byte"); err != nil {
					t.Fatal(err)
				}
				ready(t, u, 3)
				if st := only(t, u); st.Warm.Used != i+1 || st.Warm.Missed != 0 || st.Made != 4+i || st.Open != 4+i {
					t.Errorf("after client %d: %+v, %+v", i, st, st.Warm)
				}
			}
			if st := only(t, u); st.HandshakesResumed == 0 || st.HandshakesFull+st.HandshakesResumed != 8 {
				t.Errorf("%d handshakes full, %d resumed", st.HandshakesFull, st.HandshakesResumed)
			}
		})
	}
}

func TestWarmConnectionsAreOnlyForStreams(t *testing.T) {
	s := newWarmServer(t, nil)
	c := newClient(t, s.client(t))
	u := start(t, upstream.New(upstream.Options{Warm: 1, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: s.addr, Stream: c, HTTP: c}}}))
	ready(t, u, 1)
	conn := dial(t, u, upstream.HTTP)
	exchange(t, conn)
	if st := only(t, u); st.Warm.Used+st.Warm.Missed != 0 || st.Warm.Ready != 1 {
		t.Errorf("%+v", st.Warm)
	}
}

func TestNoConnectionsAreKeptWarmForPlaintextOrClientNames(t *testing.T) {
	s := newWarmServer(t, nil)
	o := s.client(t)
	tlsClient := newClient(t, o)
	o.ServerName, o.FromHost = "", true
	fromHost := newClient(t, o)
	u := start(t, upstream.New(upstream.Options{Warm: 2, Endpoints: []upstream.EndpointOptions{
		{Network: "tcp", Address: s.addr}, // plaintext
		{Network: "tcp", Address: s.addr, Stream: fromHost},
		{Network: "tcp", Address: s.addr, Stream: tlsClient, Draining: true},
	}}))
	for _, st := range u.Status() {
		if st.Warm != nil {
			t.Errorf("%+v has warm connections", st)
		}
	}
}

func TestWarmConnectionsFollowTheBalancer(t *testing.T) {
	a, b := newWarmServer(t, nil), newWarmServer(t, nil)
	u := warm(t, upstream.Options{Warm: 4}, a, b)
	ready(t, u, 4)
	for range 8 {
		if err := echoed(stream(t, u), "x"); err != nil {
			t.Fatal(err)
		}
		ready(t, u, 4)
	}
	for _, st := range u.Status() {
		if st.Warm.Used != 4 || st.Warm.Missed != 0 {
			t.Errorf("%s: %+v", st.Address, st.Warm)
		}
	}
}

// The pool detects when the server closes waiting connections, and no client
// gets a broken one.
func TestClosedWarmConnectionsAreReplaced(t *testing.T) {
	for name, end := range map[string]func(*tls.Conn){
		"close_notify":                    func(c *tls.Conn) { c.Close() },
		"half-closed":                     func(c *tls.Conn) { c.CloseWrite() },
		"closed without close_notify":     func(c *tls.Conn) { c.NetConn().Close() },
		"reset":                           func(c *tls.Conn) { c.NetConn().(*net.TCPConn).SetLinger(0); c.NetConn().Close() },
		"spoke first":                     func(c *tls.Conn) { io.WriteString(c, "220 hello") },
		"the server sent data and closed": func(c *tls.Conn) { io.WriteString(c, "HTTP/1.0 408 Too late\r\n\r\n"); c.Close() },
		"garbage for records":             func(c *tls.Conn) { io.WriteString(c.NetConn(), "\x17\x03\x03\x00\x1fgarbage garbage garbage garbage") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newWarmServer(t, nil)
			u := warm(t, upstream.Options{Warm: 3}, s)
			ready(t, u, 3)
			eventually(t, "the server has completed the handshakes", func() bool { return s.open() == 3 })
			s.each(end)
			eventually(t, "the pool has detected the closed connections", func() bool { return only(t, u).Warm.Closed == 3 })
			ready(t, u, 3)
			if err := echoed(stream(t, u), "alive"); err != nil {
				t.Error(err)
			}
			if st := only(t, u); st.Warm.Used != 1 || st.Warm.Expired != 0 || st.Health != upstream.Up {
				t.Errorf("%+v, %+v", st, st.Warm)
			}
		})
	}
}

// A TLS 1.3 server rejects the gateway's certificate after the handshake. The
// pool discards such connections and reports the reason.
func TestWarmConnectionsThatAreRefusedLate(t *testing.T) {
	s := newWarmServer(t, func(c *tls.Config) {
		c.MinVersion, c.ClientAuth = tls.VersionTLS13, tls.RequireAnyClientCert
	})
	u := warm(t, upstream.Options{Warm: 2}, s)
	eventually(t, "the endpoint is down", func() bool { return only(t, u).Health == upstream.Down })
	eventually(t, "no warm connection is ready", func() bool { return only(t, u).Warm.Ready == 0 })
	if st := only(t, u); st.Failures[certs.ReasonClientCertificateRequired] == 0 || st.Warm.Used != 0 {
		t.Errorf("%+v, %+v", st, st.Warm)
	}
}

func TestDrainingAnIdentityClosesItsWarmConnections(t *testing.T) {
	m := newMutualServer(t)
	tracker := upstream.NewTracker()
	identity := certstest.Certificate(t, m.ca.Client(t, "old"))
	o := certs.ClientOptions{ServerName: "up.test", Trust: []*certs.TrustBundle{m.ca.Trust(t)}, Certificate: identity}
	u := start(t, upstream.New(upstream.Options{Name: "up", Tracker: tracker, Warm: 2,
		Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: m.addr, Stream: newClient(t, o)}}}))
	ready(t, u, 2)
	used := stream(t, u)
	ready(t, u, 2)
	if n := tracker.Counts()[identity.Fingerprint()]; n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
	if n := tracker.Drain(identity.Fingerprint(), false, time.Hour); n != 3 {
		t.Errorf("%d drained, want 3", n)
	}
	if err := echoed(used, "still mine"); err != nil {
		t.Errorf("the connection that is in use: %v", err)
	}
	ready(t, u, 2)
	eventually(t, "two of five are closed", func() bool { return only(t, u).Open == 3 && only(t, u).Made == 5 })
	used.Close()
}

func TestARetiredUpstreamHasNoWarmConnections(t *testing.T) {
	s := newWarmServer(t, nil)
	u := upstream.New(upstream.Options{Warm: 5, Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: s.addr, Stream: newClient(t, s.client(t))}}})
	conn := stream(t, u)
	if st := only(t, u); st.Made != 1 || st.Warm.Ready != 0 || st.Warm.Missed != 1 {
		t.Errorf("before the start: %+v, %+v", st, st.Warm)
	}
	u.Start()
	ready(t, u, 5)
	u.Retire()
	// The server sees a connection end before the upstream has counted its end.
	eventually(t, "the warm connections are closed", func() bool { return s.open() == 1 && only(t, u).Open == 1 })
	if err := echoed(conn, "it continues"); err != nil {
		t.Error(err)
	}
	if err := echoed(stream(t, u), "dialing fails too"); err != nil {
		t.Error(err)
	}
	if st := only(t, u); st.Open != 2 || st.Warm.Ready != 0 {
		t.Errorf("%+v, %+v", st, st.Warm)
	}
}

func TestAThousandClientsTakeWarmConnectionsAtOnce(t *testing.T) {
	s := newWarmServer(t, nil)
	u := warm(t, upstream.Options{Warm: 32, ConnectTimeout: time.Minute, HandshakeTimeout: time.Minute}, s)
	ready(t, u, 32)
	var clients sync.WaitGroup
	begin := make(chan struct{})
	for range 1000 {
		clients.Go(func() {
			<-begin
			conn, _, err := u.Dial(t.Context(), upstream.Stream)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if err := echoed(conn, "hello"); err != nil {
				t.Error(err)
			}
		})
	}
	close(begin)
	clients.Wait()
	ready(t, u, 32)
	st := only(t, u)
	if st.Warm.Used < 32 || st.Warm.Used+st.Warm.Missed != 1000 || st.Open != 32 {
		t.Errorf("%+v, %+v", st, st.Warm)
	}
}
