package view

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/format"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/terminal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// ListenerTable lists resources of kind Listener with their status.
func ListenerTable(resources []*adminv1.Resource, statuses []*adminv1.ListenerStatus) *terminal.Table {
	// A listener that has moved has two statuses: one for its new socket and one for
	// its draining socket.
	now := make(map[string]*adminv1.ListenerStatus)
	for _, st := range statuses {
		if have := now[st.GetName()]; have == nil || have.GetState() == adminv1.ListenerState_LISTENER_STATE_DRAINING {
			now[st.GetName()] = st
		}
	}
	t := &terminal.Table{Header: []string{"NAME", "PROTOCOL", "ADDRESS", "TLS", "UPSTREAM", "STATE", "CONNECTIONS"}}
	for _, r := range resources {
		l := r.GetListener()
		st := now[l.GetName()]
		address := l.GetAddress()
		if bound := st.GetBoundAddress(); bound != "" {
			address = bound
		}
		t.Add(l.GetName(), format.Word(l.GetProtocol()), address, serverTLS(l.GetTls()), l.GetUpstream(),
			listenerState(st), fmt.Sprint(st.GetConnections()))
	}
	return t
}

func listenerState(st *adminv1.ListenerStatus) string {
	if st == nil {
		return "unknown"
	}
	state := format.Lower(st.GetState())
	if st.GetReason() != "" {
		state += ": " + st.GetReason()
	}
	return state
}

func serverTLS(tls *adminv1.ServerTls) string {
	if tls == nil {
		return "plaintext"
	}
	text := "tls" + clientAuthText(tls.GetClientAuth())
	switch n := len(tls.GetPolicies()); n {
	case 0:
	case 1:
		text += ", 1 policy"
	default:
		text += fmt.Sprintf(", %d policies", n)
	}
	return text
}

func clientAuthText(a adminv1.ClientAuth) string {
	switch a {
	case adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL:
		return ", client certificate " + format.Lower(a)
	}
	return ""
}

// RouteTable lists resources of kind Route.
func RouteTable(resources []*adminv1.Resource) *terminal.Table {
	t := &terminal.Table{Header: []string{"NAME", "LISTENERS", "HOSTS", "PATH", "METHODS", "ACTION"}}
	for _, r := range resources {
		rt := r.GetRoute()
		m := rt.GetMatch()
		path := ""
		switch k := m.GetPath().GetKind().(type) {
		case *adminv1.PathMatch_Prefix:
			path = k.Prefix + "*"
		case *adminv1.PathMatch_Exact:
			path = k.Exact
		case *adminv1.PathMatch_Regex:
			path = "~ " + k.Regex
		}
		t.Add(rt.GetName(), terminal.FirstThree(rt.GetListeners()), terminal.FirstThree(m.GetHosts()), path, terminal.FirstThree(m.GetMethods()), routeAction(rt))
	}
	return t
}

func routeAction(rt *adminv1.Route) string {
	switch a := rt.GetAction().(type) {
	case *adminv1.Route_Forward:
		var to []string
		for _, u := range a.Forward.GetUpstreams() {
			name := u.GetName()
			if len(a.Forward.GetUpstreams()) > 1 {
				name += fmt.Sprintf(":%d", u.GetWeight())
			}
			to = append(to, name)
		}
		return "forward " + terminal.FirstThree(to)
	case *adminv1.Route_Redirect:
		code := a.Redirect.GetCode()
		if code == 0 {
			code = 302
		}
		return fmt.Sprintf("redirect %d", code)
	case *adminv1.Route_Respond:
		code := a.Respond.GetCode()
		if code == 0 {
			code = 200
		}
		return fmt.Sprintf("respond %d", code)
	}
	return ""
}

// UpstreamTable lists resources of kind Upstream with their health.
func UpstreamTable(resources []*adminv1.Resource, statuses []*adminv1.UpstreamStatus) *terminal.Table {
	now := make(map[string]*adminv1.UpstreamStatus)
	for _, st := range statuses {
		now[st.GetName()] = st
	}
	t := &terminal.Table{Header: []string{"NAME", "ENDPOINTS", "TRANSPORT", "CERTIFICATE", "TRUST", "HEALTH"}}
	for _, r := range resources {
		u := r.GetUpstream()
		var addresses []string
		for _, e := range u.GetEndpoints() {
			addresses = append(addresses, e.GetAddress())
		}
		if d := u.GetDns(); d != nil {
			addresses = append(addresses, "by DNS: "+dnsName(d))
		}
		transport, trust := "tls", "system"
		switch v := u.GetTls().GetVerification(); {
		case u.GetPlaintext() != nil:
			transport, trust = "plaintext", ""
		case u.GetPassthrough() != nil:
			transport, trust = "the client's own TLS", ""
		case v == adminv1.Verification_VERIFICATION_REPORT_ONLY:
			transport = "tls, verification reported only"
		case v == adminv1.Verification_VERIFICATION_INSECURE_SKIP:
			transport, trust = "tls, NOT verified", ""
		}
		if p := u.GetTls().GetStarttls(); p != adminv1.Starttls_STARTTLS_UNSPECIFIED {
			transport += ", by STARTTLS of " + strings.TrimPrefix(p.String(), "STARTTLS_")
		}
		if bundles := u.GetTls().GetTrustBundles(); len(bundles) > 0 && trust != "" {
			trust = terminal.FirstThree(bundles)
		}
		t.Add(u.GetName(), terminal.FirstThree(addresses), transport, u.GetTls().GetCertificate(), trust, upstreamHealth(now[u.GetName()]))
	}
	return t
}

// dnsName returns the name that DNS is queried for: "web.internal:443", or the name of
// SRV records.
func dnsName(d *adminv1.Dns) string {
	if d.GetSrv() != "" {
		return d.GetSrv()
	}
	return net.JoinHostPort(d.GetHostname(), strconv.Itoa(int(d.GetPort())))
}

// upstreamHealth summarizes the endpoints: "2 up, 1 down (UNKNOWN_CA)".
func upstreamHealth(st *adminv1.UpstreamStatus) string {
	if st.GetReason() != adminv1.Reason_REASON_UNSPECIFIED {
		return "down: " + downReason(st)
	}
	var up, down, unknown int
	var reasons []string
	for _, e := range st.GetEndpoints() {
		switch e.GetHealth() {
		case adminv1.EndpointHealth_ENDPOINT_HEALTH_UP:
			up++
		case adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN:
			down++
			reasons = append(reasons, format.Word(e.GetLastFailure().GetReason()))
		default:
			unknown++
		}
	}
	var parts []string
	if up > 0 {
		parts = append(parts, fmt.Sprintf("%d up", up))
	}
	if down > 0 {
		parts = append(parts, fmt.Sprintf("%d down (%s)", down, terminal.FirstThree(reasons)))
	}
	if unknown > 0 {
		parts = append(parts, fmt.Sprintf("%d not tried", unknown))
	}
	if n := unlisted(st); n > 0 {
		parts = append(parts, fmt.Sprintf("%d not listed", n))
	}
	return strings.Join(parts, ", ")
}

// KindLabel returns the kind in the form for a sentence: "trust bundle".
func KindLabel(kind adminv1.Kind) string {
	return strings.ReplaceAll(format.Lower(kind), "_", " ")
}

// downReason returns the reason and message of a resource that is down, for
// people.
func downReason(down interface {
	GetReason() adminv1.Reason
	GetMessage() string
}) string {
	if down.GetReason() == adminv1.Reason_REASON_LOCAL_CONFIG {
		return down.GetMessage() // the message describes the fault
	}
	return format.Word(down.GetReason()) + ": " + down.GetMessage()
}
