package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/manifest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// resourceTable returns the table that `get` shows for a kind: the configuration and its
// status.
func resourceTable(ctx context.Context, cl *client, kind adminv1.Kind, resources []*adminv1.Resource) (*table, error) {
	switch kind {
	case adminv1.Kind_KIND_LISTENER:
		st, err := cl.getStatus(ctx)
		if err != nil {
			return nil, err
		}
		return listenerTable(resources, st.GetListeners()), nil
	case adminv1.Kind_KIND_UPSTREAM:
		st, err := cl.upstreamStatuses(ctx)
		if err != nil {
			return nil, err
		}
		return upstreamTable(resources, st), nil
	case adminv1.Kind_KIND_ROUTE:
		return routeTable(resources), nil
	case adminv1.Kind_KIND_CERTIFICATE:
		return certificateTable(resources, time.Now()), nil
	}
	return trustBundleTable(resources, time.Now()), nil
}

func listenerTable(resources []*adminv1.Resource, statuses []*adminv1.ListenerStatus) *table {
	// A listener that moved has two statuses: of its new and of its draining socket.
	now := make(map[string]*adminv1.ListenerStatus)
	for _, st := range statuses {
		if have := now[st.GetName()]; have == nil || have.GetState() == adminv1.ListenerState_LISTENER_STATE_DRAINING {
			now[st.GetName()] = st
		}
	}
	t := &table{header: []string{"NAME", "PROTOCOL", "ADDRESS", "TLS", "UPSTREAM", "STATE", "CONNECTIONS"}}
	for _, r := range resources {
		l := r.GetListener()
		st := now[l.GetName()]
		address := l.GetAddress()
		if bound := st.GetBoundAddress(); bound != "" {
			address = bound
		}
		t.add(l.GetName(), word(l.GetProtocol()), address, serverTLS(l.GetTls()), l.GetUpstream(),
			listenerState(st), fmt.Sprint(st.GetConnections()))
	}
	return t
}

func listenerState(st *adminv1.ListenerStatus) string {
	if st == nil {
		return "unknown"
	}
	state := lower(st.GetState())
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
		return ", client certificate " + lower(a)
	}
	return ""
}

func routeTable(resources []*adminv1.Resource) *table {
	t := &table{header: []string{"NAME", "LISTENERS", "HOSTS", "PATH", "METHODS", "ACTION"}}
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
		t.add(rt.GetName(), few(rt.GetListeners()), few(m.GetHosts()), path, few(m.GetMethods()), routeAction(rt))
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
		return "forward " + few(to)
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

func upstreamTable(resources []*adminv1.Resource, statuses []*adminv1.UpstreamStatus) *table {
	now := make(map[string]*adminv1.UpstreamStatus)
	for _, st := range statuses {
		now[st.GetName()] = st
	}
	t := &table{header: []string{"NAME", "ENDPOINTS", "TRANSPORT", "CERTIFICATE", "TRUST", "HEALTH"}}
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
			trust = few(bundles)
		}
		t.add(u.GetName(), few(addresses), transport, u.GetTls().GetCertificate(), trust, upstreamHealth(now[u.GetName()]))
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
		return "down: " + why(st)
	}
	var up, down, unknown int
	var why []string
	for _, e := range st.GetEndpoints() {
		switch e.GetHealth() {
		case adminv1.EndpointHealth_ENDPOINT_HEALTH_UP:
			up++
		case adminv1.EndpointHealth_ENDPOINT_HEALTH_DOWN:
			down++
			why = append(why, word(e.GetLastFailure().GetReason()))
		default:
			unknown++
		}
	}
	var parts []string
	if up > 0 {
		parts = append(parts, fmt.Sprintf("%d up", up))
	}
	if down > 0 {
		parts = append(parts, fmt.Sprintf("%d down (%s)", down, few(why)))
	}
	if unknown > 0 {
		parts = append(parts, fmt.Sprintf("%d not tried", unknown))
	}
	if n := unlisted(st); n > 0 {
		parts = append(parts, fmt.Sprintf("%d not listed", n))
	}
	return strings.Join(parts, ", ")
}

// kindLabel is the kind in running text: "trust bundle".
func kindLabel(kind adminv1.Kind) string {
	return strings.ReplaceAll(lower(kind), "_", " ")
}

func kindMessage(kind adminv1.Kind) protoreflect.Name {
	return protoreflect.Name(manifest.KindName(kind))
}
