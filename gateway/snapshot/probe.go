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

// An Endpoint is one endpoint of an upstream, as it is probed.
type Endpoint struct {
	Address  string // as the resource has it
	Draining bool
	Down     string // why its upstream is down; empty if it is up

	// Unresolved is why DNS did not tell an address, and then Address is the name
	// that was asked for. Nil: this is one.
	Unresolved error

	Target probe.Target
}

// maxKnown is how many trust bundles a chain is tried against that leads to no
// trusted CA.
const maxKnown = 200

// Endpoints returns the endpoints of an upstream in the order of the resource;
// where they come from DNS it asks anew, until ctx ends, and returns those that there
// are now.
// They are probed with the settings that HTTP listeners use, unless nothing but
// TCP listeners lead to it. Host is the name for settings that take it from the
// request; "" means each endpoint's own. Those of an upstream that is down
// cannot be probed.
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
	}
	if d := u.msg.GetDns(); d != nil {
		if u.down != "" {
			return []Endpoint{{Address: cmp.Or(d.GetHostname(), d.GetSrv()), Down: u.down}}
		}
		return u.ask(ctx, common, streams)
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

// onlyStreams reports whether the upstream is used, and by TCP listeners alone.
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
// that a route to it names in full. "" if there is none.
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

// Changed returns the names of the upstreams that are up and that traffic will
// find changed when s follows prev, in their order.
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

// WithUpstream returns prev with one upstream as the draft puts it, and
// everything else as it is. It is for looking at, not to be made live. Faults
// go to bad.
func (c Compiler) WithUpstream(ctx context.Context, prev *Snapshot, d *store.Draft, name string, bad *invalid.List) *Snapshot {
	next := *prev
	next.state = d.State()
	next.upstreams = map[string]*liveUpstream{}
	next.problems, next.standing = slices.Clip(prev.problems), slices.Clip(prev.standing) // prev's are not to be written to
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
