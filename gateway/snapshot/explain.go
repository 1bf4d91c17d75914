package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Explain returns where a request or connection would go, and why. It uses the same
// tables as traffic. Faults of the question go to bad.
func (s *Snapshot) Explain(q *adminv1.ExplainRouteRequest, bad *invalid.List) *adminv1.ExplainRouteResponse {
	l := s.Listener(q.GetListener())
	switch {
	case q.GetListener() == "":
		bad.Add("listener", "must be set")
		return nil
	case l == nil:
		bad.AddClass(invalid.NotFound, "listener", "%s", s.State().Absent(store.Ref{Kind: adminv1.Kind_KIND_LISTENER, Name: q.GetListener()}))
		return nil
	}
	if l.msg.GetTls() == nil && !l.peeks() && q.GetSni() != "" {
		bad.Add("sni", "must be left out: listener %q is plaintext", l.Name)
	}
	if l.Protocol != adminv1.Protocol_PROTOCOL_HTTP {
		for _, f := range []struct {
			name string
			set  bool
		}{{"host", q.GetHost() != ""}, {"path", q.GetPath() != ""}, {"method", q.GetMethod() != ""}, {"headers", len(q.GetHeaders()) > 0}} {
			if f.set {
				bad.Add(invalid.Path(f.name), "must be left out: listener %q carries connections, not requests", l.Name)
			}
		}
	}
	for name := range q.GetHeaders() {
		if !httpguts.ValidHeaderFieldName(name) {
			bad.Add(invalid.Path("headers").Key(name), "is not a valid header name")
		}
	}
	client := l.explainedClient(q, bad)
	if bad.Len() > 0 {
		return nil
	}
	if l.Down != "" {
		return refused(0, "the listener is down: %s", l.Down)
	}
	if l.Protocol == adminv1.Protocol_PROTOCOL_HTTP {
		return s.explainHTTP(l, q, client)
	}
	return s.explainTCP(l, q, client)
}

// explainedClient returns the client's certificate that a question describes, or
// nil.
func (l *Listener) explainedClient(q *adminv1.ExplainRouteRequest, bad *invalid.List) *route.Client {
	const at = invalid.Path("client_identity")
	id := q.GetClientIdentity()
	switch {
	case id == nil:
		return nil
	case !asksForCertificates(l.msg.GetTls()):
		bad.Add(at, "must be left out: listener %q requests no client certificates", l.Name)
		return nil
	}
	client, err := route.ParseClient(id.GetSubjectAltNames(), id.GetSha256Fingerprint(), id.GetIssuer())
	for _, e := range unwrap(err) {
		var re *route.RuleError
		if errors.As(e, &re) {
			bad.Add(at.Field(re.Field), "%v", re.Err)
		}
	}
	return client
}

func refused(code int, format string, args ...any) *adminv1.ExplainRouteResponse {
	return &adminv1.ExplainRouteResponse{Action: adminv1.ExplainedAction_EXPLAINED_ACTION_REFUSE, Code: int32(code), Why: fmt.Sprintf(format, args...)}
}

// refusedElsewhere explains traffic whose route, or listener for "", has no upstream at
// this gateway.
func refusedElsewhere(l *Listener, name, reason string) *adminv1.ExplainRouteResponse {
	out := refused(0, "%s", reason)
	if out.Route = name; l.Protocol == adminv1.Protocol_PROTOCOL_HTTP {
		out.Code = http.StatusServiceUnavailable
	}
	return out
}

func (s *Snapshot) explainTCP(l *Listener, q *adminv1.ExplainRouteRequest, client *route.Client) *adminv1.ExplainRouteResponse {
	if l.tls != nil && !l.tls.Knows(q.GetSni()) && !l.passes(q.GetSni()) {
		return unknownSNI(q.GetSni())
	}
	// As in bridge/l4: an SNI that is not a valid name matches only routes without
	// hosts.
	host, err := route.NormalizeHost(q.GetSni())
	if err != nil {
		host = ""
	}
	var policy *adminv1.ExplainedTlsPolicy
	if !l.passes(q.GetSni()) {
		policy = l.explainPolicy(q.GetSni())
	}
	ask := route.Request{Host: host, Client: presented(client, policy)}
	if policy != nil && !l.tls.Serves(q.GetSni(), host) {
		return refused(0, "the SNI %.260q is not a host name, and the host in it belongs to another TLS policy", q.GetSni())
	}
	var name string
	if t, ok := l.tcp.Routes.Match(ask); ok {
		name = t.Route
	} else if l.tcp.Default == nil {
		out := refused(0, "%s, and the listener has no upstream of its own", l.explainNoMatch(ask))
		out.Host, out.TlsPolicy = host, policy
		return out
	}
	out := s.chosen(l, name, ask, host)
	out.Host, out.TlsPolicy = host, policy
	return out
}

func unknownSNI(sni string) *adminv1.ExplainRouteResponse {
	if sni == "" {
		return refused(0, "the client sends no SNI, and tls.reject_unknown_sni refuses the handshake (alert unrecognized_name)")
	}
	return refused(0, "the SNI %.260q fits no certificate of the listener, and tls.reject_unknown_sni refuses the handshake (alert unrecognized_name)", sni)
}

func (s *Snapshot) explainHTTP(l *Listener, q *adminv1.ExplainRouteRequest, client *route.Client) *adminv1.ExplainRouteResponse {
	host := cmp.Or(q.GetHost(), q.GetSni(), l.ownHost())
	sni := q.GetSni()
	if l.tls != nil {
		// An HTTP client sends the host as SNI unless the host is an IP address.
		if name, err := route.NormalizeHost(host); sni == "" && err == nil && isHostName(name) {
			sni = name
		}
		if !l.tls.Knows(sni) {
			return unknownSNI(sni)
		}
	}
	policy := l.explainPolicy(sni)
	client = presented(client, policy)
	header := http.Header{}
	for name, value := range q.GetHeaders() {
		header.Add(name, value)
	}
	// The header is set before Resolve, which removes fields that conditions
	// cannot match.
	r := l.http.Resolve(l7.Question{Method: cmp.Or(q.GetMethod(), http.MethodGet), Host: host, Target: cmp.Or(q.GetPath(), "/"), SNI: sni, Header: header, Client: client})
	header.Set("X-Forwarded-Proto", r.Scheme) // conditions may match this header
	ask := route.Request{Host: r.Host, Path: r.Path, Method: cmp.Or(q.GetMethod(), http.MethodGet), Scheme: r.Scheme, Header: header.Values, Client: client}
	var out *adminv1.ExplainRouteResponse
	switch {
	case r.Err != nil && r.Path != "":
		out = refused(r.Code, "the path cannot be normalized for forwarding: %v", r.Err)
	case r.Err != nil:
		out = refused(r.Code, "the request is rejected before routes are matched: %v", r.Err)
	case r.Code == http.StatusMisdirectedRequest && l.tls.For(sni) != l.tls.For(r.Host):
		out = refused(r.Code, "the connection was made for %s, whose TLS policy (%s) is not that of the host (%s)", sniText(sni), l.policyFor(sni).at, l.policyFor(r.Host).at)
	case r.Code == http.StatusMisdirectedRequest:
		out = refused(r.Code, "the host fits no certificate of the listener, whose tls.reject_unknown_sni is set")
	case r.Action == nil:
		out = refused(r.Code, "%s, and the listener has no upstream of its own", l.explainNoMatch(ask))
	default:
		out = s.chosen(l, r.Action.Route, ask, r.Host)
	}
	out.Host, out.Path, out.UpstreamPath = r.Host, r.Path, r.UpstreamPath
	out.TlsPolicy = policy
	return out
}

// presented returns the client's certificate if the policy requests one, else
// nil.
func presented(client *route.Client, policy *adminv1.ExplainedTlsPolicy) *route.Client {
	if policy.GetClientAuth() == adminv1.ClientAuth_CLIENT_AUTH_NONE || policy == nil {
		return nil
	}
	return client
}

func sniText(sni string) string {
	if sni == "" {
		return "no SNI"
	}
	return fmt.Sprintf("the SNI %.260q", sni)
}

// policyFor returns the TLS policy of a name. The listener has TLS.
func (l *Listener) policyFor(name string) *livePolicy {
	server := l.tls.For(name)
	return l.uses.policies[slices.IndexFunc(l.uses.policies, func(p *livePolicy) bool { return p.server == server })]
}

// explainPolicy describes the TLS policy that applies to an SNI. It returns nil for
// plaintext.
func (l *Listener) explainPolicy(sni string) *adminv1.ExplainedTlsPolicy {
	if l.tls == nil {
		return nil
	}
	p := l.policyFor(sni)
	return &adminv1.ExplainedTlsPolicy{
		Field: string(p.at), Hosts: p.hosts, Certificates: p.msg.GetCertificates(),
		ClientAuth: cmp.Or(p.msg.GetClientAuth(), adminv1.ClientAuth_CLIENT_AUTH_NONE), ClientTrustBundles: p.msg.GetClientTrustBundles(),
	}
}

// ownHost returns the host that a client sends if it only knows the listener's
// address.
func (l *Listener) ownHost() string {
	if host, port, err := net.SplitHostPort(l.Address); err == nil && l.Network == "tcp" && host != "" {
		return net.JoinHostPort(host, port)
	}
	return "localhost"
}

// chosen explains what the chosen route does. "" stands for the listener's own
// upstream.
func (s *Snapshot) chosen(l *Listener, name string, ask route.Request, host string) *adminv1.ExplainRouteResponse {
	if name == "" {
		if l.uses.upstream == nil {
			return refusedElsewhere(l, "", l.explainNoMatch(ask)+", and the listener's own upstream applies only to other gateways")
		}
		return &adminv1.ExplainRouteResponse{
			Action: adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD, Why: l.explainNoMatch(ask) + ", so it goes to the listener's own upstream",
			Upstreams: []*adminv1.ExplainedUpstream{s.explainUpstream(l.msg.GetUpstream(), 100, l.Protocol, host)},
		}
	}
	msg := l.uses.routes.Get(name).msg
	out := &adminv1.ExplainRouteResponse{Route: name, Why: l.explanation(msg, ask)}
	switch {
	case msg.GetRedirect() != nil:
		out.Action, out.Code = adminv1.ExplainedAction_EXPLAINED_ACTION_REDIRECT, cmp.Or(msg.GetRedirect().GetCode(), http.StatusFound)
	case msg.GetRespond() != nil:
		out.Action, out.Code = adminv1.ExplainedAction_EXPLAINED_ACTION_RESPOND, cmp.Or(msg.GetRespond().GetCode(), http.StatusOK)
	default:
		out.Action = adminv1.ExplainedAction_EXPLAINED_ACTION_FORWARD
		all := slices.DeleteFunc(slices.Clone(msg.GetForward().GetUpstreams()), func(u *adminv1.WeightedUpstream) bool {
			return s.upstreams.Get(u.GetName()) == nil
		})
		if len(all) == 0 {
			return refusedElsewhere(l, name, out.Why+", and its upstreams apply only to other gateways")
		}
		var sum int64
		for _, u := range all {
			sum += int64(shareOf(u))
		}
		for _, u := range all {
			if share := 100 * float64(shareOf(u)) / float64(sum); share > 0 {
				out.Upstreams = append(out.Upstreams, s.explainUpstream(u.GetName(), share, l.Protocol, host))
			}
		}
	}
	return out
}

func (s *Snapshot) explainUpstream(name string, percent float64, p adminv1.Protocol, host string) *adminv1.ExplainedUpstream {
	u := s.upstreams.Get(name)
	t := u.msg.GetTls()
	reason, message := u.reason()
	out := &adminv1.ExplainedUpstream{
		Name: name, Percent: percent, Reason: reason, Message: message,
		Certificate: t.GetCertificate(), TrustBundles: t.GetTrustBundles(), Passthrough: u.passes(),
	}
	if overTLS(u.msg) {
		out.Verification = cmp.Or(t.GetVerification(), adminv1.Verification_VERIFICATION_FULL)
	}
	if c := u.uses.certificate; c != nil {
		out.Sha256Fingerprint = c.Fingerprint()
	}
	if u.name != nil {
		for _, e := range u.live.Endpoints() {
			to := &adminv1.ExplainedEndpoint{Address: e.Address(), Backup: e.Backup(), Tls: overTLS(u.msg), UnavailableReason: e.Unavailable()}
			purpose := upstream.HTTP
			if p == adminv1.Protocol_PROTOCOL_TCP {
				purpose = upstream.Stream
			}
			if client := u.planned(e.Client(purpose)); client != nil {
				to.ServerName, to.VerifyNames = namesOf(client.Options(), host)
			}
			out.Endpoints = append(out.Endpoints, to)
		}
	}
	unavailable := map[string]string{}
	for _, e := range u.live.Endpoints() {
		unavailable[e.Address()] = e.Unavailable()
	}
	for _, e := range u.msg.GetEndpoints() {
		to := &adminv1.ExplainedEndpoint{Address: e.GetAddress(), Backup: e.GetBackup(), Draining: e.GetDraining(), Tls: overTLS(u.msg)}
		_, addr, _, _ := dialAddress(e.GetAddress())
		to.UnavailableReason = unavailable[addr]
		clients := u.clients[addr]
		client := clients.http
		if p == adminv1.Protocol_PROTOCOL_TCP {
			client = clients.stream
		}
		if client = u.planned(client); client != nil {
			to.ServerName, to.VerifyNames = namesOf(client.Options(), host)
		}
		out.Endpoints = append(out.Endpoints, to)
	}
	out.EndpointCount = int32(len(out.Endpoints))
	out.Endpoints = out.Endpoints[:min(len(out.Endpoints), maxExplained)]
	return out
}

// maxExplained bounds the endpoints of an upstream that an explanation lists.
const maxExplained = 1000

// namesOf returns the name to send as SNI, and the names to verify.
func namesOf(o certs.ClientOptions, host string) (sni string, verify []string) {
	name := o.ServerName
	if o.FromHost {
		name = strings.Trim(host, "[]")
	}
	if _, err := netip.ParseAddr(name); err != nil && !o.NoServerName {
		sni = name
	}
	switch {
	case o.Verification == certs.VerifyInsecureSkip:
	case len(o.SubjectAltNames) > 0:
		for _, n := range o.SubjectAltNames {
			verify = append(verify, n.String())
		}
	case o.VerifyName != "":
		verify = []string{o.VerifyName}
	case name != "":
		verify = []string{name}
	}
	return sni, verify
}
