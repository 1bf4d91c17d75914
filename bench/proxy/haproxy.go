package proxy

import (
	"context"
	"fmt"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// HAProxy is haproxy.
type HAProxy struct{}

// Name implements Kind.
func (HAProxy) Name() string { return "haproxy" }

// Version implements Kind.
func (HAProxy) Version(ctx context.Context) (string, error) {
	out, err := output(ctx, "haproxy", "-v")
	return firstLine(out), err
}

// Unsupported implements Kind.
func (HAProxy) Unsupported(s Service) string {
	switch {
	case s.Admin:
		return noAdmin
	case s.Postgres:
		return noPostgres
	}
	return ""
}

func (HAProxy) command(w work) (command, error) {
	path, err := lookPath("haproxy")
	if err != nil {
		return command{}, err
	}
	conf, err := w.file("haproxy.cfg", haproxyConfig(w))
	return command{path: path, args: []string{"-db", "-q", "-f", conf}}, err
}

func haproxyConfig(w work) string {
	mode, extra := "tcp", ""
	if w.service.HTTP {
		mode, extra = "http", "\n  http-reuse always"
	}
	bind := "bind " + w.listen
	if w.service.ListenTLS {
		bind += " ssl crt " + w.keys.Listener.Bundle + " ssl-min-ver TLSv1.2"
		if w.service.ClientHTTP2 {
			bind += " alpn h2,http/1.1"
		}
	}
	server := fmt.Sprintf("server backend %s ssl verify required ca-file %s crt %s sni str(%s) verifyhost %s ssl-min-ver TLSv1.2",
		w.backend, w.keys.CA, w.keys.Client.Bundle, keys.BackendName, keys.BackendName)
	if w.service.NoResumption {
		server += " no-ssl-reuse"
	}
	if w.service.UpstreamHTTP2 {
		server += " alpn h2"
	}
	return fmt.Sprintf(`global
  nbthread 2
  maxconn 8000
defaults
  mode %s
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend clients
  %s
  default_backend servers
backend servers%s
  %s
`, mode, bind, extra, server)
}
