package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An authority is a CA with a server certificate and a client certificate.
type authority struct {
	ca             *pki.CA
	server, client *pki.Issued
}

// serverName is the name of the servers in these tests.
const serverName = "backend.example.com"

func newAuthority(t testing.TB) *authority {
	t.Helper()
	ca := newCA(t, "e2e root")
	return &authority{ca: ca, server: serverCert(t, ca, serverName), client: clientCert(t, ca, "e2e client")}
}

// serverConfig returns a config that requires a client certificate of the
// authority.
func (a *authority) serverConfig(t testing.TB) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{keyPair(t, a.server)},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool(a.ca),
	}
}

// settings returns settings with the stored resources "client", the client's
// certificate, and "ca", the authority as a trust bundle.
func (a *authority) settings() *adminv1.UpstreamTls {
	return &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"ca"}, ServerName: serverName}
}

// serveHTTPS serves handler, over HTTP/2 if a client negotiates it.
func serveHTTPS(t testing.TB, config *tls.Config, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.TLS = config
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes are expected
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.Listener.Addr().String()
}

// respondsWith answers every request with a text.
func respondsWith(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// serveConns passes each connection to handle, which owns it until it returns.
// A nil config serves plaintext.
func serveConns(t testing.TB, config *tls.Config, handle func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, ln, config, handle)
	return ln.Addr().String()
}

func serveOn(t testing.TB, ln net.Listener, config *tls.Config, handle func(net.Conn)) {
	var (
		mu    sync.Mutex
		conns []net.Conn
		wg    sync.WaitGroup
	)
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				if config != nil {
					conn = tls.Server(conn, config)
				}
				handle(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
}

// echo sends back the bytes that it reads until the client half-closes, and
// then half-closes too.
func echo(conn net.Conn) {
	if _, err := io.Copy(onlyWriter{conn}, onlyReader{conn}); err == nil {
		_ = closeWrite(conn)
	}
}

// onlyWriter and onlyReader keep io.Copy from splicing sockets, because these
// tests are about the gateway's splice.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

func closeWrite(conn net.Conn) error {
	c, ok := conn.(interface{ CloseWrite() error })
	if !ok {
		return fmt.Errorf("%T cannot close one direction", conn)
	}
	return c.CloseWrite()
}

// dial connects to a listener. Every operation on the connection fails after
// testTimeout.
func dial(t testing.TB, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	return conn.(*net.TCPConn)
}

// dialTLS connects to a TLS listener.
func dialTLS(t testing.TB, address string, config *tls.Config) *tls.Conn {
	t.Helper()
	conn := tls.Client(dial(t, address), config)
	if err := conn.HandshakeContext(longContext(t)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// exchange sends text, half-closes and returns the whole answer.
func exchange(t testing.TB, address, text string) (string, error) {
	t.Helper()
	// A connection may be reset before the dial returns.
	conn, err := net.DialTimeout("tcp", address, testTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(testTimeout))
	if _, err := io.WriteString(conn, text); err != nil {
		return "", err
	}
	if err := closeWrite(conn); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// pingPong sends text and waits until it is echoed.
func pingPong(conn net.Conn, text string) error {
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("sent %q, got back %q", text, got)
	}
	return nil
}

// get makes one request on its own connection and returns the status code and
// the body.
func get(t testing.TB, url string) (int, string) {
	t.Helper()
	code, body, err := tryGet(t, oneRequestClient, url)
	if err != nil {
		t.Fatal(err)
	}
	return code, body
}

var oneRequestClient = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func tryGet(t testing.TB, client *http.Client, url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	body, err := readBody(resp)
	return resp.StatusCode, body, err
}

func readBody(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// freeAddresses returns addresses on which nothing listens, for programs that cannot let the
// kernel choose.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	addresses := make([]string, n)
	for i := range addresses {
		addresses[i] = sockettest.Free(t)
	}
	return addresses
}

// refuses reports whether the address refuses connections.
func refuses(address string) bool {
	conn, err := net.DialTimeout("tcp", address, testTimeout)
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
