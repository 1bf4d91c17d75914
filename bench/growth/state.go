package growth

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// chunks returns a function that collects resources and applies them in chunks that fit
// in a message, and a function that applies the rest.
func (b *bench) chunks(ctx context.Context) (put func(*adminv1.Resource) error, flush func() error) {
	var chunk []*adminv1.Resource
	flush = func() error {
		_, err := b.gateway.Admin.Apply(ctx, &adminv1.ApplyRequest{Resources: chunk})
		chunk = nil
		return err
	}
	put = func(r *adminv1.Resource) error {
		if chunk = append(chunk, r); len(chunk) < 5000 {
			return nil
		}
		return flush()
	}
	return put, flush
}

// baseCertificates is the number of certificates that base puts.
const baseCertificates = 2

// base puts what every state has: the trust bundle, two certificates and an upstream.
func (b *bench) base(put func(*adminv1.Resource) error) error {
	ca, err := os.ReadFile(b.keys.CA)
	if err != nil {
		return err
	}
	errs := []error{put(&adminv1.Resource{Kind: &adminv1.Resource_TrustBundle{
		TrustBundle: &adminv1.TrustBundle{Name: "bench", Source: &adminv1.TrustBundle_Pem{Pem: string(ca)}},
	}})}
	for name, pair := range map[string]keys.Pair{"client": b.keys.Client, "listener": b.keys.Listener} {
		chain, errChain := os.ReadFile(pair.Chain)
		key, errKey := os.ReadFile(pair.Key)
		errs = append(errs, errChain, errKey, put(certificate(name, chain, key)))
	}
	errs = append(errs, put(&adminv1.Resource{Kind: &adminv1.Resource_Upstream{Upstream: &adminv1.Upstream{
		Name: "backend", Endpoints: []*adminv1.Endpoint{{Address: b.backend.Address()}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{
			Certificate: "client", TrustBundles: []string{"bench"}, ServerName: keys.BackendName,
		}},
	}}}))
	return errors.Join(errs...)
}

func certificate(name string, chain, key []byte) *adminv1.Resource {
	return &adminv1.Resource{Kind: &adminv1.Resource_Certificate{Certificate: &adminv1.Certificate{
		Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: string(chain), PrivateKey: string(key)}},
	}}}
}

// listener returns the listener. With TLS it presents its own certificate and others.
func (b *bench) listener(protocol adminv1.Protocol, tls bool, others []string) *adminv1.Resource {
	l := &adminv1.Listener{
		Name: "edge", Address: b.listen, Protocol: protocol, Upstream: "backend",
		Timeouts: &adminv1.ListenerTimeouts{Idle: durationpb.New(time.Hour)},
	}
	if tls {
		l.Tls = &adminv1.ServerTls{Certificates: append([]string{"listener"}, others...)}
	}
	return &adminv1.Resource{Kind: &adminv1.Resource_Listener{Listener: l}}
}

// route returns the ith route. Half of the routes have a path besides their host. Another
// header is a change of the route.
func route(i int, header string) *adminv1.Route {
	r := &adminv1.Route{
		Name: fmt.Sprintf("r%06d", i), Listeners: []string{"edge"}, Match: &adminv1.RouteMatch{Hosts: []string{hostOf(i)}},
		Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: "backend"}}}},
	}
	if i%2 == 1 {
		r.Match.Path = &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: "/bytes/"}}
	}
	if header != "" {
		r.RequestHeaders = &adminv1.HeaderRules{Set: []*adminv1.HeaderValue{{Name: "X-Change", Value: header}}}
	}
	return r
}

// hostOf returns the host of the ith route, which is also the name in the ith certificate.
func hostOf(i int) string { return fmt.Sprintf("h%06d.growth.test", i) }
