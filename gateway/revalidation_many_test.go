package gateway

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A liveClient is a client's connection of any kind.
type liveClient interface {
	// alive uses the connection, and fails unless the gateway serves it.
	alive() error
	// ended returns nil when the connection has ended. It fails if the gateway still
	// serves the connection.
	ended() error
}

// A rawClient is an HTTP/1.1 connection, or a stream or tunnel that echoes lines.
type rawClient struct {
	net.Conn
	r    *bufio.Reader
	http bool
}

func (c *rawClient) alive() error {
	c.SetDeadline(time.Now().Add(deadline))
	if !c.http {
		if _, err := io.WriteString(c, "line\n"); err != nil {
			return err
		}
		_, err := c.r.ReadString('\n')
		return err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: front.example\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		return fmt.Errorf("%d, %v", resp.StatusCode, err)
	}
	return nil
}

func (c *rawClient) ended() error {
	c.SetDeadline(time.Now().Add(deadline))
	if n, err := c.r.Read(make([]byte, 1)); err == nil || timedOut(err) {
		return fmt.Errorf("read %d bytes, %v", n, err)
	}
	return nil
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// inParallel runs a check with all connections at once, and fails if any of them does.
func inParallel(t *testing.T, name string, live []liveClient, check func(liveClient) error) {
	t.Helper()
	var wg sync.WaitGroup
	var bad atomic.Int64
	var first atomic.Pointer[string]
	for _, c := range live {
		wg.Go(func() {
			if err := check(c); err != nil {
				bad.Add(1)
				text := fmt.Sprintf("%T: %v", c, err)
				first.CompareAndSwap(nil, &text)
			}
		})
	}
	wg.Wait()
	if n := bad.Load(); n > 0 {
		t.Fatalf("%s: %d of %d connections, first %s", name, n, len(live), *first.Load())
	}
}

// An h2Client has one HTTP/2 connection.
type h2Client struct {
	t    *testing.T
	http *http.Client
	url  string
}

func (c *h2Client) alive() error {
	if code, reused, err := tryRequest(c.t.Context(), c.http, c.url); err != nil || code != 200 || !reused {
		return fmt.Errorf("%d, reused: %v, %v", code, reused, err)
	}
	return nil
}

func (c *h2Client) ended() error {
	resp, err := c.http.Get(c.url)
	if err != nil {
		return nil // on a new connection
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		return fmt.Errorf("answered with %d", resp.StatusCode)
	}
	return nil
}

// manyKinds dials one connection of each kind.
type manyKinds struct {
	t         *testing.T
	ca        *certstest.CA
	tcp, http string // addresses of listeners
}

func (m *manyKinds) dial(issued *pki.Issued) ([]liveClient, error) {
	raw := func(address, request string, isHTTP bool) (liveClient, error) {
		config := &tls.Config{RootCAs: m.ca.Pool(), ServerName: "front.example", NextProtos: []string{"http/1.1"}}
		if address == m.tcp {
			config.NextProtos = nil
		}
		if issued != nil {
			config.Certificates = []tls.Certificate{certstest.TLS(m.t, issued)}
		}
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: deadline}, "tcp", address, config)
		if err != nil {
			return nil, err
		}
		m.t.Cleanup(func() { c.Close() })
		client := &rawClient{c, bufio.NewReader(c), isHTTP}
		if request != "" {
			c.SetDeadline(time.Now().Add(deadline))
			io.WriteString(c, request)
			resp, err := http.ReadResponse(client.r, nil)
			if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
				return nil, fmt.Errorf("no tunnel: %v", err)
			}
		}
		return client, client.alive()
	}
	stream, err := raw(m.tcp, "", false)
	h1, err1 := raw(m.http, "", true)
	tunnel, err2 := raw(m.http, "GET /tunnel HTTP/1.1\r\nHost: front.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", false)
	h2 := &h2Client{m.t, tlsClient(m.t, m.ca, issued, "h2"), "https://" + m.http}
	_, _, err3 := tryRequest(m.t.Context(), h2.http, h2.url)
	return []liveClient{stream, h1, tunnel, h2}, errors.Join(err, err1, err2, err3, h2.alive())
}

// lines starts servers that answer requests, and that echo tunnels and streams.
func lines(t *testing.T) (stream, http1 string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, ln, func(c net.Conn) { io.Copy(c, c) })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, "ok")
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		io.Copy(c, rw)
	}))
	t.Cleanup(s.Close)
	return ln.Addr().String(), s.Listener.Addr().String()
}

// A thousand connections of every kind are open. A connection ends exactly if its
// client's certificate is revoked, expires, loses its CA, or is missing when it
// becomes required. No other connection is affected.
func TestExactlyTheRightConnectionsEnd(t *testing.T) {
	each := 50
	if alloctest.Race || testing.Short() {
		each = 5
	}
	g, offset := startWithClock(t)
	ca, partners := certstest.NewCA(t), certstest.NewCA(t)
	streamTo, httpTo := lines(t)
	cert, settings := frontTLS(t, ca, adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL)
	settings.ClientTrustBundles = append(settings.ClientTrustBundles, "partners")
	settings.Revalidation = &adminv1.Revalidation{Grace: durationpb.New(time.Second)}
	streams, requests := tcpListener("tls", "127.0.0.1:0"), httpListener("https", "127.0.0.1:0")
	streams.Upstream, requests.Upstream = "streams", "requests"
	streams.Tls, requests.Tls = settings, proto.Clone(settings).(*adminv1.ServerTls)
	g.put(bundle("clients", ca, ca.CRL(t)), bundle("partners", partners), cert, plainUpstream("streams", streamTo), plainUpstream("requests", httpTo), streams, requests)

	kinds := &manyKinds{t, ca, g.address("tls"), g.address("https")}
	revoked := ca.Client(t, "revoked")
	groups := []struct {
		name   string
		issued *pki.Issued
		end    func() // ends the connections; nil: they stay
		live   []liveClient
	}{
		{"revoked", revoked, func() { g.put(bundle("clients", ca, ca.CRL(t, revoked.Leaf))) }, nil},
		{"expired", ca.Leaf(t, pki.LeafOptions{CommonName: "expires", Usage: pki.Client, NotAfter: time.Now().Add(time.Hour)}),
			func() {
				offset.Store(int64(2 * time.Hour))
				eventually(t, "every connection with the expired certificate has ended", func() bool {
					return g.clientsEnded("EXPIRED") == uint64(4*each)
				})
			}, nil},
		{"of a removed CA", partners.Client(t, "partner"), func() {
			settings.ClientTrustBundles = []string{"clients"}
			requests.Tls.ClientTrustBundles = settings.ClientTrustBundles
			g.put(proto.Clone(streams).(*adminv1.Listener), proto.Clone(requests).(*adminv1.Listener))
		}, nil},
		{"without a certificate", nil, func() {
			settings.ClientAuth = adminv1.ClientAuth_CLIENT_AUTH_REQUIRED
			requests.Tls.ClientAuth = settings.ClientAuth
			g.put(proto.Clone(streams).(*adminv1.Listener), proto.Clone(requests).(*adminv1.Listener))
		}, nil},
		{"valid", ca.Client(t, "valid"), nil, nil},
	}
	for i := range groups {
		for range each {
			all, err := kinds.dial(groups[i].issued)
			if err != nil {
				t.Fatalf("%s: %v", groups[i].name, err)
			}
			groups[i].live = append(groups[i].live, all...)
		}
	}
	for i := range groups {
		if groups[i].end == nil {
			continue
		}
		groups[i].end()
		inParallel(t, groups[i].name+": must end", groups[i].live, liveClient.ended)
		for _, other := range groups[i+1:] {
			inParallel(t, groups[i].name+" ended: connections that are "+other.name+" must stay", other.live, liveClient.alive)
		}
	}
	left := int64(len(groups[len(groups)-1].live))
	eventually(t, "only the connections with a valid certificate are open", func() bool {
		return g.listener("tls").GetConnections()+g.listener("https").GetConnections() == left
	})
}
