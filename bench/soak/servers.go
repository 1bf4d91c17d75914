package soak

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/child"
	"github.com/drawbridge-gateway/drawbridge/bench/wire"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// Names in the certificates.
const (
	backendName  = "backend.soak.test"
	listenerName = "gateway.soak.test"
)

// An authority issues the certificates of a run.
type authority struct {
	ca   *pki.CA
	pool *x509.CertPool
}

func newAuthority() (*authority, error) {
	ca, err := pki.NewRoot(pki.CAOptions{CommonName: "soak"})
	if err != nil {
		return nil, err
	}
	a := &authority{ca: ca, pool: x509.NewCertPool()}
	a.pool.AddCert(ca.Certificate())
	return a, nil
}

func (a *authority) server(name string) (*pki.Issued, error) {
	return a.ca.Issue(pki.LeafOptions{DNSNames: []string{name}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
}

func (a *authority) client() (*pki.Issued, error) {
	return a.ca.Issue(pki.LeafOptions{CommonName: "gateway", Usage: pki.Client})
}

// serverTLS returns the settings of a server that requires a client certificate.
func (a *authority) serverTLS(protos ...string) (*tls.Config, error) {
	issued, err := a.server(backendName)
	if err != nil {
		return nil, err
	}
	cert, err := tls.X509KeyPair(issued.ChainPEM, issued.KeyPEM)
	if err != nil {
		return nil, err
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool, NextProtos: protos}, nil
}

// An endpoint serves HTTP on one address until it is killed, and again after a restart. No
// other program can take the address meanwhile.
type endpoint struct {
	address string
	config  *tls.Config

	mu     sync.Mutex
	server *http.Server
	served sync.WaitGroup
}

func newEndpoint(config *tls.Config) (*endpoint, error) {
	address, err := child.FreeAddress()
	if err != nil {
		return nil, err
	}
	e := &endpoint{address: address, config: config}
	return e, e.restart()
}

// slowBody is the size of an endpoint's response in bytes. The endpoint sends it slowly, so
// that a crash interrupts some responses.
const slowBody = 5

func (e *endpoint) serve(l net.Listener) {
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(slowBody))
		for i := range slowBody {
			if _, err := w.Write(wire.At(1, uint64(i), 1)); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	})}
	e.mu.Lock()
	e.server = s
	e.mu.Unlock()
	e.served.Go(func() { _ = s.Serve(tls.NewListener(l, e.config)) })
}

// kill resets every connection and refuses new ones.
func (e *endpoint) kill() {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	_ = s.Close()
	e.served.Wait()
}

// restart serves again.
func (e *endpoint) restart() error {
	l, err := net.Listen("tcp", e.address)
	if err != nil {
		return err
	}
	e.serve(l)
	return nil
}
