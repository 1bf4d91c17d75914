package demo

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

// A demoServer is one of the servers behind the demo's gateway. It serves only clients
// with a certificate of the demo's CA.
type demoServer struct {
	address string
	stop    func()
}

// demoUpstreams are the servers behind the demo's gateway.
type demoUpstreams struct {
	web1, web2, echo *demoServer
}

func (u *demoUpstreams) stop() {
	for _, s := range []*demoServer{u.web1, u.web2, u.echo} {
		if s != nil {
			s.stop()
		}
	}
}

func startDemoUpstreams(ca *pki.CA) (_ *demoUpstreams, err error) {
	u := &demoUpstreams{}
	defer func() {
		if err != nil {
			u.stop()
		}
	}()
	if u.web1, err = startDemoWeb(ca, "web-1"); err != nil {
		return nil, err
	}
	if u.web2, err = startDemoWeb(ca, "web-2"); err != nil {
		return nil, err
	}
	if u.echo, err = startDemoEcho(ca); err != nil {
		return nil, err
	}
	return u, nil
}

// describeCaller describes the client certificate that a server received.
func describeCaller(server string, state *tls.ConnectionState) string {
	cert := state.PeerCertificates[0] // never empty: the certificate is required
	return fmt.Sprintf("%s: your client certificate is %s, serial %x\n", server, cert.Subject, cert.SerialNumber)
}

func startDemoWeb(ca *pki.CA, name string) (*demoServer, error) {
	config, err := ca.MutualTLS("web.demo.test")
	if err != nil {
		return nil, err
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{
		TLSConfig:         config,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0), // the gateway already reports failed handshakes
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, describeCaller(name, r.TLS))
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.ServeTLS(lis, "", "")
	}()
	return &demoServer{address: lis.Addr().String(), stop: func() {
		srv.Close()
		<-done
	}}, nil
}

// startDemoEcho starts a server that sends a greeting, then echoes its input.
func startDemoEcho(ca *pki.CA) (*demoServer, error) {
	config, err := ca.MutualTLS("echo.demo.test")
	if err != nil {
		return nil, err
	}
	lis, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return // only stop closes it
			}
			running.Go(func() { echo(ctx, conn.(*tls.Conn)) })
		}
	})
	return &demoServer{address: lis.Addr().String(), stop: func() {
		cancel()
		lis.Close()
		running.Wait()
	}}, nil
}

func echo(ctx context.Context, conn *tls.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if conn.HandshakeContext(ctx) != nil {
		return
	}
	state := conn.ConnectionState()
	if _, err := io.WriteString(conn, describeCaller("echo", &state)); err != nil {
		return
	}
	io.Copy(conn, conn)
	conn.CloseWrite()
}
