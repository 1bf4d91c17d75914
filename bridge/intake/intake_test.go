package intake_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/limit"
	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	"github.com/drawbridge-gateway/drawbridge/bridge/proxyproto"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server echoes each connection.
type server struct {
	*intake.Intake
	rules   atomic.Pointer[intake.Rules]
	tls     *certs.Server
	address string
	refused chan *intake.Refusal
	served  chan error
	panics  atomic.Bool // the goroutine that serves a connection panics
	greets  bool        // each connection begins with its client's name
}

type owner struct {
	intake.Conn
	server *server
	sock   *socket.Socket
}

func (o *owner) Drain()            {}
func (o *owner) Work() (int, bool) { return 0, true }

func (o *owner) Describe(*live.Connection) {}
func (o *owner) Cut(error)                 { o.sock.Reset() }

func serve(t testing.TB, rules *intake.Rules, listenerTLS *certs.Server) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, rules, listenerTLS, intake.Options{Logger: hclog.NewNullLogger()})
}

// serveOn is serve for a listener.
func serveOn(t testing.TB, ln net.Listener, rules *intake.Rules, listenerTLS *certs.Server, o intake.Options) *server {
	t.Helper()
	o.Limiter = limit.New()
	s := &server{
		Intake: intake.New(o),
		tls:    listenerTLS, address: ln.Addr().String(), refused: make(chan *intake.Refusal, 100), served: make(chan error, 1),
	}
	s.rules.Store(rules)
	go func() { s.served <- s.Serve(ln, s.take) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-s.served; err != intake.ErrClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return s
}

func (s *server) take(raw net.Conn) {
	o := &owner{server: s, sock: socket.New(raw, nil)}
	rules := s.rules.Load()
	if s.Enter(&o.Conn, raw, rules, o) {
		o.sock.OnClose(func() { s.Leave(&o.Conn) })
		go o.serve(rules)
	}
}

func (o *owner) serve(rules *intake.Rules) {
	s := o.server
	defer s.Done()
	defer func() {
		if p := recover(); p != nil {
			s.Panicked(&o.Conn, p)
		}
	}()
	defer func() {
		if !s.panics.Load() {
			o.sock.Close()
		}
	}()
	if r := s.Announce(&o.Conn, rules); r != nil {
		o.sock.Reset()
		s.refused <- r
		return
	}
	var conn net.Conn = o.sock
	peer := intake.Plaintext
	if s.tls != nil {
		tc := s.tls.Conn(o.sock)
		verified, r := s.Handshake(&o.Conn, certs.NewServers(s.tls), tc, o.sock, time.Now().Add(rules.Timeout()))
		if r != nil {
			s.refused <- r
			return
		}
		conn, peer = tc, verified
	}
	s.Verified(&o.Conn, o.sock, peer)
	if s.greets {
		conn.SetDeadline(time.Now().Add(rules.Timeout()))
		fmt.Fprintln(conn, o.Name())
	}
	if s.panics.Load() {
		panic("on purpose")
	}
	io.Copy(conn, conn)
}

func (s *server) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wantEcho checks that a connection is served.
func wantEcho(t testing.TB, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// wantRefused connects, and expects a reset.
func (s *server) wantRefused(t testing.TB) {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err == nil {
		defer c.Close()
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func eventually(t testing.TB, condition string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true in time: %s", condition)
		}
	}
}

// hello returns a ClientHello that offers only versions the server rejects.
func hello(t testing.TB) []byte {
	near, far := net.Pipe()
	go tls.Client(near, &tls.Config{ServerName: "x.test", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10}).Handshake()
	buf := make([]byte, 4<<10)
	n, err := far.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	near.Close()
	far.Close()
	return buf[:n]
}

// The alert arrives although the server never reads the client's last bytes.
func TestTheAlertIsNotLostToAReset(t *testing.T) {
	ca := certstest.NewCA(t)
	listenerTLS, err := certs.NewServer(certs.ServerOptions{Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "x.test"))}})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, &intake.Rules{}, listenerTLS)
	for round := range 50 {
		c := s.dial(t)
		if _, err := c.Write(append(hello(t), make([]byte, 64<<10)...)); err != nil {
			t.Fatal(err)
		}
		alert := make([]byte, 7)
		if _, err := io.ReadFull(c, alert); err != nil || !bytes.Equal(alert[5:], []byte{2, 70}) { // fatal, protocol_version
			t.Fatalf("round %d: got %v, %v", round, alert, err)
		}
		if _, err := c.Read(alert); err != io.EOF {
			t.Fatalf("round %d: the alert is followed by %v", round, err)
		}
		if _, err := c.Write([]byte("more")); err != nil {
			t.Fatalf("round %d: writing failed: %v", round, err)
		}
		c.Close()
		if r := <-s.refused; r.Ending != intake.HandshakeFailed || r.Reason != certs.ReasonProtocolVersion {
			t.Errorf("%+v", r)
		}
	}
	eventually(t, "all connections are closed", func() bool { return s.Stats().Open == 0 })
	if n := s.Stats().HandshakeFailures[certs.ReasonProtocolVersion]; n != 50 {
		t.Errorf("counted %d", n)
	}
}

// crypto/tls rejects an SNI with a trailing dot as a message that it cannot decode.
func TestATrailingDotIsAnUnrecognizedName(t *testing.T) {
	ca := certstest.NewCA(t)
	listenerTLS, err := certs.NewServer(certs.ServerOptions{Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "x.test"))}})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, &intake.Rules{}, listenerTLS)
	for _, tt := range []struct {
		old, with string
		want      certs.Reason
	}{{"x.test", "x.tes.", certs.ReasonUnrecognizedName}, {"\x00\x06x.test", "\x00\x07x.test", certs.ReasonOther}} {
		c := s.dial(t)
		if _, err := c.Write(bytes.Replace(hello(t), []byte(tt.old), []byte(tt.with), 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatal(err)
		}
		c.Close()
		r := <-s.refused
		if r.Ending != intake.HandshakeFailed || r.Reason != tt.want {
			t.Errorf("%q: %+v", tt.with, r)
		}
		if named := strings.Contains(r.Err.Error(), "trailing dot"); named != (tt.want == certs.ReasonUnrecognizedName) {
			t.Errorf("%q: %v", tt.with, r.Err)
		}
	}
}

// The Intake does not wait for a client that neither reads nor ends its stream.
func TestRefusedClientsAreClosedInTime(t *testing.T) {
	ca := certstest.NewCA(t)
	listenerTLS, err := certs.NewServer(certs.ServerOptions{Certificates: []*certs.Certificate{certstest.Certificate(t, ca.Server(t, "x.test"))}})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, &intake.Rules{}, listenerTLS)
	c := s.dial(t)
	c.Write(hello(t))
	<-s.refused
	eventually(t, "the connection is closed", func() bool { return s.Stats().Open == 0 })
}

// A connection over a limit does not spend a rate.
func TestConnectionsOverALimitDoNotSpendTheRate(t *testing.T) {
	s := serve(t, &intake.Rules{MaxConnections: 1, Rate: limit.Rate{Count: 2, Period: time.Hour}}, nil)
	one := s.dial(t)
	wantEcho(t, one)
	for range 5 {
		s.wantRefused(t)
	}
	one.Close()
	eventually(t, "there is room", func() bool { return s.Stats().Open == 0 })
	wantEcho(t, s.dial(t))
	s.rules.Store(&intake.Rules{Rate: limit.Rate{Count: 2, Period: time.Hour}})
	s.wantRefused(t)
	if st := s.Stats(); st.Accepted != 2 || st.Rejected != 6 {
		t.Errorf("%+v", st)
	}
}

// Limits and access apply to the client that a header announces.
func TestAnnouncedClients(t *testing.T) {
	trust, faults := proxyproto.NewTrust([]string{"127.0.0.1"})
	if faults != nil {
		t.Fatal(faults)
	}
	deny, bad := cidr.Parse([]string{"192.0.2.9"})
	if bad != nil {
		t.Fatal(bad)
	}
	s := serve(t, &intake.Rules{ProxyProtocol: trust, Access: &cidr.Access{Deny: deny}, MaxPerClient: 1}, nil)
	announce := func(ip string) net.Conn {
		c := s.dial(t)
		fmt.Fprintf(c, "PROXY TCP4 %s 198.51.100.2 1 2\r\n", ip)
		return c
	}
	first := announce("192.0.2.1")
	wantEcho(t, first)
	announce("192.0.2.1")
	if r := <-s.refused; r.Ending != intake.LimitReached {
		t.Errorf("%+v", r)
	}
	announce("192.0.2.9")
	if r := <-s.refused; r.Ending != intake.NoAccess {
		t.Errorf("%+v", r)
	}
	other := announce("192.0.2.2")
	wantEcho(t, other)
	first.Close()
	eventually(t, "one connection has ended", func() bool { return s.Stats().Open == 1 })
	wantEcho(t, announce("192.0.2.1"))
}

// Connections accepted before StopAccepting are served.
func TestConnectionsContinueAfterStopAccepting(t *testing.T) {
	s := serve(t, &intake.Rules{}, nil)
	c := s.dial(t)
	wantEcho(t, c)
	s.StopAccepting()
	if err := <-s.served; err != intake.ErrClosed {
		t.Errorf("Serve returned %v", err)
	}
	s.served <- intake.ErrClosed
	wantEcho(t, c)
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	eventually(t, "the server begins to close", s.Closing)
	wantEcho(t, c)
	c.Close()
	if err := <-down; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// A goroutine that panics ends its connection and no other.
func TestAPanicEndsOneConnection(t *testing.T) {
	s := serve(t, &intake.Rules{}, nil)
	other := s.dial(t)
	wantEcho(t, other)
	s.panics.Store(true)
	s.wantRefused(t)
	eventually(t, "the connection has ended", func() bool { return s.Stats().Open == 1 })
	wantEcho(t, other)
	s.panics.Store(false)
}

// A prefix contains a link-local address only without its zone.
func TestAddressesHaveNoZones(t *testing.T) {
	set, bad := cidr.Parse([]string{"fe80::/10"})
	if bad != nil {
		t.Fatal(bad)
	}
	i := intake.New(intake.Options{Limiter: limit.New(), Logger: hclog.NewNullLogger()})
	o := &owner{}
	rules := &intake.Rules{Access: &cidr.Access{Allow: set}}
	if !i.Enter(&o.Conn, zonedConn{}, rules, o) {
		t.Fatal("a client with a link-local address is refused")
	}
	i.Leave(&o.Conn)
	i.Done()
	i.Shutdown(context.Background())
}

// zonedConn is a connection from a link-local address.
type zonedConn struct{ net.Conn }

func (zonedConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "lo"} }
func (zonedConn) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.ParseIP("fe80::2"), Zone: "lo"} }
func (zonedConn) Close() error         { return nil }
