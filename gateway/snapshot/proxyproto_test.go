package snapshot

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Empty or invalid sources are rejected: headers are never accepted from every peer by
// mistake.
func TestSourcesOfProxyProtocolHeaders(t *testing.T) {
	w := newTestbed(t)
	w.put(w.bundle("trust"), tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}))
	sound := listener("l", "127.0.0.1:1", tcp, "u")
	sound.AcceptProxyProtocol = &adminv1.AcceptProxyProtocol{TrustedSources: []string{"10.0.0.0/8", "unix:", "2001:db8::1"}}
	w.put(sound)
	for _, test := range []struct {
		sources []string
		fields  []invalid.Path
	}{
		{nil, []invalid.Path{"r0.accept_proxy_protocol.trusted_sources"}},
		{[]string{"10.0.0.0/8", "lb.example", "10.1.2.3/8"}, []invalid.Path{
			"r0.accept_proxy_protocol.trusted_sources[1]", "r0.accept_proxy_protocol.trusted_sources[2]"}},
	} {
		l := proto.Clone(sound).(*adminv1.Listener)
		l.AcceptProxyProtocol.TrustedSources = test.sources
		var fields []invalid.Path
		for _, f := range w.refused(l) {
			fields = append(fields, f.Field)
		}
		if slices.Sort(fields); !slices.Equal(fields, test.fields) {
			t.Errorf("%v: faults at %v, want %v", test.sources, fields, test.fields)
		}
	}
	u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	u.SendProxyProtocol = 99
	if faults := w.refused(u); len(faults) != 1 || faults[0].Field != "r0.send_proxy_protocol" {
		t.Errorf("an invalid version: %v", faults)
	}
}
