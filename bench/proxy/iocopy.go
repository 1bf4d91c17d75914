package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"runtime"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// IOCopy is the simplest tunnel in Go, similar to Ghostunnel: crypto/tls, a
// goroutine for each direction with io.CopyBuffer and 32 KiB, and a full
// handshake for each connection. It runs this program with IOCopyCommand as
// its first argument.
type IOCopy struct {
	// Program is the path of this program.
	Program string
}

// IOCopyCommand is the argument that runs this program as the tunnel.
const IOCopyCommand = "iocopy"

// Name implements Kind.
func (IOCopy) Name() string { return "iocopy" }

// Version implements Kind.
func (IOCopy) Version(context.Context) (string, error) {
	return "io.Copy both ways with 32 KiB, " + runtime.Version(), nil
}

// Cannot implements Kind.
func (IOCopy) Cannot(s Service) string {
	switch {
	case s.Admin:
		return noAdmin
	case s.HTTP:
		return "speaks no HTTP"
	}
	return ""
}

func (i IOCopy) command(w work) (command, error) {
	args := []string{IOCopyCommand, "-listen", w.listen, "-backend", w.backend,
		"-ca", w.keys.CA, "-cert", w.keys.Client.Chain, "-key", w.keys.Client.Key, "-name", keys.BackendName}
	if w.service.ListenTLS {
		args = append(args, "-listen-cert", w.keys.Listener.Chain, "-listen-key", w.keys.Listener.Key)
	}
	if w.service.ClientHTTP2 {
		args = append(args, "-protocol", "h2")
	}
	return command{path: i.Program, args: args}, nil
}

// ServeIOCopy runs the tunnel until its process is ended.
func ServeIOCopy(args []string) error {
	flags := flag.NewFlagSet(IOCopyCommand, flag.ContinueOnError)
	listen := flags.String("listen", "", "`address` to listen on")
	backend := flags.String("backend", "", "`address` to connect to")
	ca := flags.String("ca", "", "`file` of the CA")
	cert := flags.String("cert", "", "`file` of the client certificate")
	key := flags.String("key", "", "`file` of its key")
	name := flags.String("name", "", "`name` to verify")
	listenCert := flags.String("listen-cert", "", "`file` of the certificate to present; empty for plaintext")
	listenKey := flags.String("listen-key", "", "`file` of its key")
	protocol := flags.String("protocol", "", "`protocol` to negotiate by ALPN on both sides")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var protocols []string
	if *protocol != "" {
		protocols = []string{*protocol}
	}
	roots, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}, ServerName: *name, NextProtos: protocols}
	if !config.RootCAs.AppendCertsFromPEM(roots) {
		return errors.New("the CA's file contains no certificate")
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	if *listenCert != "" {
		own, err := tls.LoadX509KeyPair(*listenCert, *listenKey)
		if err != nil {
			return err
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: protocols})
	}
	for {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		go tunnel(client, *backend, config)
	}
}

// tunnel owns client.
func tunnel(client net.Conn, backend string, config *tls.Config) {
	defer client.Close()
	server, err := tls.Dial("tcp", backend, config)
	if err != nil {
		return
	}
	defer server.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		pump(client, server)
	}()
	pump(server, client)
	<-back
}

// pump copies until from ends, and forwards the end of the stream.
func pump(to, from net.Conn) {
	// Plain reader and writer: otherwise the copy would not use the buffer.
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
