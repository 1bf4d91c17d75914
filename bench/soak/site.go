package soak

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A site is a gateway with the servers behind it.
type site struct {
	*authority
	gateway *gateway
	servers []*backend.Backend
	fragile []*endpoint

	addresses map[string]string // the addresses of listeners by name

	mu      sync.Mutex
	outages []outage
	written int64 // the latest acknowledged revision
}

// An outage is a time in which an endpoint did not serve. If ended is zero, the outage
// continues.
type outage struct{ began, ended time.Time }

// recovery is how long after an outage clients may still fail: until the gateway tries the
// endpoint again.
const recovery = 5 * time.Second

// broken reports whether an endpoint was down at some time since.
func (s *site) broken(since time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.outages {
		if o.ended.IsZero() || o.ended.Add(recovery).After(since) {
			return true
		}
	}
	return false
}

func newSite(ctx context.Context, binary, dir string) (_ *site, err error) {
	s := &site{gateway: &gateway{binary: binary, dir: dir}, addresses: map[string]string{}}
	if s.authority, err = newAuthority(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	config, err := s.serverTLS("h2", "http/1.1")
	if err != nil {
		return nil, err
	}
	plain := config.Clone()
	plain.NextProtos = nil
	raw, rawErr := backend.Start(plain)
	web, webErr := backend.StartHTTP(config)
	rpc, rpcErr := backend.StartGRPC(config)
	if err := errors.Join(rawErr, webErr, rpcErr); err != nil {
		return nil, err
	}
	s.servers = []*backend.Backend{raw, web, rpc}
	for range 2 {
		e, err := newEndpoint(plain)
		if err != nil {
			return nil, err
		}
		s.fragile = append(s.fragile, e)
	}
	if err := s.gateway.start(ctx); err != nil {
		return nil, err
	}
	resources, err := s.resources(raw.Address(), web.Address(), rpc.Address())
	if err != nil {
		return nil, err
	}
	if _, err := s.gateway.admin.Apply(ctx, &adminv1.ApplyRequest{Resources: resources}); err != nil {
		return nil, err
	}
	status, err := s.gateway.status.GetStatus(ctx, &adminv1.GetStatusRequest{})
	if err != nil {
		return nil, err
	}
	for _, l := range status.GetListeners() {
		s.addresses[l.GetName()] = strings.TrimPrefix(l.GetBoundAddress(), "tcp:")
	}
	return s, nil
}

// resources returns the configuration that the gateway begins with.
func (s *site) resources(raw, web, rpc string) ([]*adminv1.Resource, error) {
	certificates, err := s.certificates()
	if err != nil {
		return nil, err
	}
	up := func(name string, addresses ...string) *adminv1.Resource {
		return &adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: s.upstream(name, addresses...)}}
	}
	on := func(name string, protocol adminv1.Protocol, upstream string, secure bool) *adminv1.Resource {
		l := &adminv1.Listener{Name: name, Address: "127.0.0.1:0", Protocol: protocol, Upstream: upstream}
		if secure {
			l.Tls = &adminv1.ServerTls{Certificates: []string{"listener"}}
		}
		return &adminv1.Resource{Kind: &adminv1.Resource_Listener{Listener: l}}
	}
	const tcp, http = adminv1.Protocol_PROTOCOL_TCP, adminv1.Protocol_PROTOCOL_HTTP
	return append(certificates,
		&adminv1.Resource{Kind: &adminv1.Resource_TrustBundle{TrustBundle: &adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_Pem{Pem: string(s.ca.RootPEM())}}}},
		up("raw", raw), up("web", web), up("rpc", rpc), up("fragile", s.fragile[0].address, s.fragile[1].address),
		on("raw", tcp, "raw", false), on("raw-tls", tcp, "raw", true), on("web", http, "web", false), on("web-tls", http, "web", true),
		on("rpc", http, "rpc", true), on("fragile", http, "fragile", false)), nil
}

// upstream returns an upstream whose idle connections close soon, so that an idle gateway
// is soon like a new one.
func (s *site) upstream(name string, addresses ...string) *adminv1.Upstream {
	u := &adminv1.Upstream{
		Name: name, Pool: &adminv1.Pool{IdleTimeout: durationpb.New(2 * time.Second)},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"ca"}, ServerName: backendName}},
	}
	for _, address := range addresses {
		u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: address})
	}
	return u
}

// certificates returns new certificates for the gateway.
func (s *site) certificates() ([]*adminv1.Resource, error) {
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	server, err := s.server(listenerName)
	if err != nil {
		return nil, err
	}
	resource := func(name string, i *pki.Issued) *adminv1.Resource {
		return &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{
			Pem: &adminv1.CertificatePem{CertificateChain: string(i.ChainPEM), PrivateKey: string(i.KeyPEM)},
		}}}}
	}
	return []*adminv1.Resource{resource("client", client), resource("listener", server)}, nil
}

// clientTLS returns the settings of clients.
func (s *site) clientTLS(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: s.pool, ServerName: listenerName, NextProtos: protos, ClientSessionCache: tls.NewLRUClientSessionCache(8)}
}

// close ends the gateway and the servers, and checks that servers received only data
// that clients sent.
func (s *site) close() error {
	err := s.gateway.stop()
	if err != nil {
		err = fmt.Errorf("%w; the log %s ends with: %s", err, filepath.Join(s.gateway.dir, "log"), s.gateway.process.Log())
	}
	for _, b := range s.servers {
		if n := b.Mismatched.Load(); n > 0 {
			err = errors.Join(err, fmt.Errorf("a server received unexpected data %d times", n))
		}
		err = errors.Join(err, b.Close())
	}
	for _, e := range s.fragile {
		e.kill()
	}
	return err
}
