package snapshot

import (
	"cmp"
	"context"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An Endpoint is one endpoint of an upstream, ready to probe.
type Endpoint struct {
	Address  string // the address in the resource
	Draining bool
	Down     string // why the upstream is down; "" if it is up

	// Unresolved is the error of a failed DNS lookup, or nil. If it is not nil, Address
	// is the name that was looked up.
	Unresolved error

	Target probe.Target
}

// maxKnown bounds how many other trust bundles are tried for a chain that does not
// lead to a trusted CA.
const maxKnown = 200

// Endpoints returns the endpoints of an upstream in the order of the resource. If
// the endpoints come from DNS, it makes a new lookup, bounded by ctx, and returns
// its result.
//
// Endpoints have the TLS settings for HTTP traffic, or those for TCP traffic if
// only TCP listeners use the upstream. host is the server name for settings that
// take it from the request; "" means each endpoint's own host. Endpoints of an
// upstream that is down cannot be probed.
func (s *Snapshot) Endpoints(ctx context.Context, name, host string) []Endpoint {
	u := s.upstreams.Get(name)
	if u == nil {
		return nil
	}
	streams := u.upgrades() || s.onlyStreams(name)
	known := s.knownBundles()
	common := probe.Target{
		Host:             host,
		ConnectTimeout:   u.msg.GetTimeouts().GetConnect().AsDuration(),
		HandshakeTimeout: u.msg.GetTimeouts().GetHandshake().AsDuration(),
		ProxyProtocol:    proxyVersions[u.msg.GetSendProxyProtocol()],
		Via:              u.proxy,
		Starttls:         starttlsProtocols[u.msg.GetTls().GetStarttls()],
		Known:            known,
		Certificates:     s.knownCertificates(),
	}
	if d := u.msg.GetDns(); d != nil {
		if u.down != "" {
			return []Endpoint{{Address: cmp.Or(d.GetHostname(), d.GetSrv()), Down: u.down}}
		}
		return u.lookUp(ctx, common, streams)
	}
	var out []Endpoint
	for i, e := range u.msg.GetEndpoints() {
		network, addr, host, _ := dialAddress(e.GetAddress())
		clients := u.clients[addr]
		t := common
		t.Network, t.Address, t.Client = network, addr, u.planned(clients.http)
		t.Field = string(invalid.Path("endpoints").Index(i))
		if streams {
			t.Client = u.planned(clients.stream)
		}
		if t.Host == "" {
			t.Host = host
		}
		out = append(out, Endpoint{Address: e.GetAddress(), Draining: e.GetDraining(), Down: u.down, Target: t})
	}
	return out
}

// onlyStreams reports whether the upstream has users and all of them are TCP
// listeners.
func (s *Snapshot) onlyStreams(name string) bool {
	tcp, http := false, false
	for _, l := range s.leadingTo(name) {
		if l.Protocol == adminv1.Protocol_PROTOCOL_HTTP {
			http = true
		} else {
			tcp = true
		}
	}
	return tcp && !http
}

// RequestHost returns a host that requests for the upstream may have: the first
// host without a wildcard in a route to it, or "" if no route has one.
func (s *Snapshot) RequestHost(name string) string {
	for user := range s.State().Users(upstreamRef(name)) {
		r, ok := s.State().Get(user.Kind, user.Name).(*adminv1.Route)
		if !ok {
			continue
		}
		for _, h := range r.GetMatch().GetHosts() {
			if host, err := route.NormalizeHost(h); err == nil && IsHost(host) {
				return host
			}
		}
	}
	return ""
}

func upstreamRef(name string) store.Ref {
	return store.Ref{Kind: adminv1.Kind_KIND_UPSTREAM, Name: name}
}

// leadingTo returns the listeners whose traffic may reach the upstream, in the order
// of their names.
func (s *Snapshot) leadingTo(name string) []*Listener {
	found := map[string]*Listener{}
	for user := range s.State().Users(upstreamRef(name)) {
		names := []string{user.Name}
		if r, ok := s.State().Get(user.Kind, user.Name).(*adminv1.Route); ok {
			names = r.GetListeners()
		}
		for _, l := range names {
			if live := s.Listener(l); live != nil {
				found[l] = live
			}
		}
	}
	return ordered.Collect(found).Values()
}

func (s *Snapshot) knownBundles() []probe.Bundle {
	var out []probe.Bundle
	for name, b := range s.bundles.All() {
		if len(out) == maxKnown {
			break
		}
		if b.trust != nil {
			out = append(out, probe.Bundle{Name: name, Trust: b.trust})
		}
	}
	return out
}

// knownCertificates returns certificates that an upstream could present, in the
// order of their names.
func (s *Snapshot) knownCertificates() []probe.Certificate {
	var out []probe.Certificate
	for name, c := range s.certificates.All() {
		if len(out) == maxKnown {
			break
		}
		if c.live != nil {
			out = append(out, probe.Certificate{Name: name, Cert: c.live})
		}
	}
	return out
}

// Changed returns the names of the upstreams that are up and whose live object or
// requirement differs between prev and s, in order.
func (s *Snapshot) Changed(prev *Snapshot) []string {
	var out []string
	for name, u := range ordered.Differ(prev.upstreams, s.upstreams) {
		if u[1] != nil && u[1].down == "" && (!u[1].sameLive(u[0]) || u[1].requires != u[0].requires) {
			out = append(out, name)
		}
	}
	return out
}

// WithUpstream returns prev with one upstream taken from the draft. The result is
// for inspection and must not be made live. Faults go to bad.
func (c Compiler) WithUpstream(ctx context.Context, prev *Snapshot, d *store.Draft, name string, bad *invalid.List) *Snapshot {
	next := *prev
	next.state = d.State()
	next.upstreams = ordered.Map[*liveUpstream]{}
	m := new(Material)
	if prev.system == nil {
		m.system = c.readSystem(ctx)
	}
	j := c.configure(&job{prev: prev, draft: d, state: next.state, material: m, bad: bad})
	j.next, j.everywhere = &next, true
	if r := next.state.Get(adminv1.Kind_KIND_UPSTREAM, name); r != nil {
		next.upstreams = next.upstreams.With(map[string]*liveUpstream{name: j.upstream(r.(*adminv1.Upstream))})
	}
	next.reports = prev.reports.With(j.reports)
	return &next
}
