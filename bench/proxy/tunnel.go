package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"net"
	"os"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// tunnelSettings are the settings with which this program runs as a tunnel.
type tunnelSettings struct {
	listener net.Listener
	backend  string // address
	config   *tls.Config
}

// tunnelArgs returns the arguments that make this program the tunnel of a command.
func tunnelArgs(command string, w work) []string {
	args := []string{command, "-listen", w.listen, "-backend", w.backend,
		"-ca", w.keys.CA, "-cert", w.keys.Client.Chain, "-key", w.keys.Client.Key, "-name", keys.BackendName}
	if w.service.ListenTLS {
		args = append(args, "-listen-cert", w.keys.Listener.Chain, "-listen-key", w.keys.Listener.Key)
	}
	if w.service.ClientHTTP2 {
		args = append(args, "-protocol", "h2")
	}
	return args
}

// parseTunnel parses the arguments after the command, and listens.
func parseTunnel(command string, args []string) (*tunnelSettings, error) {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
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
		return nil, err
	}
	var protocols []string
	if *protocol != "" {
		protocols = []string{*protocol}
	}
	roots, err := os.ReadFile(*ca)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}, ServerName: *name, NextProtos: protocols}
	if !config.RootCAs.AppendCertsFromPEM(roots) {
		return nil, errors.New("the CA's file contains no certificate")
	}
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		return nil, err
	}
	if *listenCert != "" {
		own, err := tls.LoadX509KeyPair(*listenCert, *listenKey)
		if err != nil {
			return nil, err
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: protocols})
	}
	return &tunnelSettings{listener: l, backend: *backend, config: config}, nil
}
