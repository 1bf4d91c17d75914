package snapshot

import (
	"cmp"
	"context"
	"slices"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// An Endpoint is one endpoint of an upstream, ready to probe.
type Endpoint struct {
	Address  string // as in the resource
	Draining bool
	Down     string // why its upstream is down; empty if it is up

	// Unresolved is the error of a failed DNS lookup; Address is then the name that was
	// looked up. Nil: Address is an address.
	Unresolved error

	Target probe.Target
}

// maxKnown bounds how many other trust bundles a chain is tried against if it does
// not lead to a trusted CA.
const maxKnown = 200

// Endpoints returns the endpoints of an upstream in the order of the resource. If
// they come from DNS, it makes a new lookup, bounded by ctx, and returns its result.
//
// Endpoints have the TLS settings of HTTP listeners, or those of TCP listeners if
// only TCP listeners use the upstream. host is the server name for settings that
// take it from the request; "" means each endpoint's own host. Endpoints of an
// upstream that is down cannot be probed.
func (s *Snapshot) Endpoints(ctx context.Context, name, host string) []Endpoint {
	u := s.upstreams[name]
	if u == nil {
		return nil
	}
	streams := s.onlyStreams(name)
	known := s.knownBundles()
	common := probe.Target{
		Host:             host,
		ConnectTimeout:   u.msg.GetTimeouts().GetConnect().AsDuration(),
		HandshakeTimeout: u.msg.GetTimeouts().GetHandshake().AsDuration(),
		ProxyProtocol:    proxyVersions[u.msg.GetSendProxyProtocol()],
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
		network, addr, own, _ := dialAddress(e.GetAddress())
		clients := u.clients[addr]
		t := common
		t.Network, t.Address, t.Client = network, addr, clients.http
		t.Field = string(invalid.Path("endpoints").Index(i))
		if streams {
			t.Client = clients.stream
		}
		if t.Host == "" {
			t.Host = own
		}
		out = append(out, Endpoint{Address: e.GetAddress(), Draining: e.GetDraining(), Down: u.down, Target: t})
	}
	return out
}

// onlyStreams reports whether the upstream is used, and only by TCP listeners.
func (s *Snapshot) onlyStreams(name string) bool {
	tcp, http := false, false
	for _, l := range s.listeners {
		if !l.leadsTo(name) {
			continue
		}
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
	for _, r := range s.State().List(adminv1.Kind_KIND_ROUTE) {
		msg := r.(*adminv1.Route)
		if !forwardsTo(msg, name) {
			continue
		}
		for _, h := range msg.GetMatch().GetHosts() {
			if host, err := route.NormalizeHost(h); err == nil && IsHost(host) {
				return host
			}
		}
	}
	return ""
}

func forwardsTo(msg *adminv1.Route, name string) bool {
	return slices.ContainsFunc(msg.GetForward().GetUpstreams(), func(w *adminv1.WeightedUpstream) bool { return w.GetName() == name })
}

func (l *Listener) leadsTo(name string) bool {
	if l.msg.GetUpstream() == name {
		return true
	}
	return slices.ContainsFunc(l.uses.routes, func(r *liveRoute) bool { return forwardsTo(r.msg, name) })
}

func (s *Snapshot) knownBundles() []probe.Bundle {
	var out []probe.Bundle
	for _, r := range s.State().List(adminv1.Kind_KIND_TRUST_BUNDLE) {
		if b := s.bundles[r.GetName()]; b != nil && b.trust != nil && len(out) < maxKnown {
			out = append(out, probe.Bundle{Name: r.GetName(), Trust: b.trust})
		}
	}
	return out
}

// knownCertificates returns certificates that an upstream could present, in the
// order of their names.
func (s *Snapshot) knownCertificates() []probe.Certificate {
	var out []probe.Certificate
	for _, r := range s.State().List(adminv1.Kind_KIND_CERTIFICATE) {
		if c := s.certificates[r.GetName()]; c != nil && c.live != nil && len(out) < maxKnown {
			out = append(out, probe.Certificate{Name: r.GetName(), Cert: c.live})
		}
	}
	return out
}

// Changed returns the names of the upstreams that are up and whose live object
// differs between prev and s, in order.
func (s *Snapshot) Changed(prev *Snapshot) []string {
	var out []string
	for _, r := range s.State().List(adminv1.Kind_KIND_UPSTREAM) {
		u, before := s.upstreams[r.GetName()], prev.upstreams[r.GetName()]
		if u.down == "" && !u.sameLive(before) {
			out = append(out, r.GetName())
		}
	}
	return out
}

// WithUpstream returns prev with one upstream replaced by the draft's. The result is
// for inspection and must not be made live. Faults go to bad.
func (c Compiler) WithUpstream(ctx context.Context, prev *Snapshot, d *store.Draft, name string, bad *invalid.List) *Snapshot {
	next := *prev
	next.state = d.State()
	next.upstreams = map[string]*liveUpstream{}
	next.problems, next.standing = slices.Clip(prev.problems), slices.Clip(prev.standing) // appending must not write to prev's
	m := new(Material)
	if prev.system == nil {
		m.system = c.readSystem(ctx)
	}
	j := c.configure(&job{prev: prev, draft: d, state: next.state, material: m, bad: bad})
	j.next = &next
	if r := next.state.Get(adminv1.Kind_KIND_UPSTREAM, name); r != nil {
		next.upstreams[name] = j.upstream(r.(*adminv1.Upstream))
	}
	return &next
}
