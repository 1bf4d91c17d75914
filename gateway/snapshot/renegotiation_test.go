package snapshot

import (
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Renegotiation works only with HTTP/1.1. Settings under which it cannot work
// cause a warning or, with only HTTP/2, a fault.
func TestRenegotiationOnlyWhereItWorks(t *testing.T) {
	upstream := func(p adminv1.HttpProtocol, min adminv1.TlsVersion) *adminv1.Upstream {
		u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}, MinVersion: min, Renegotiation: adminv1.Renegotiation_RENEGOTIATION_ONCE})
		u.Http = &adminv1.UpstreamHttp{Protocol: p}
		return u
	}
	const one, two, auto = adminv1.HttpProtocol_HTTP_PROTOCOL_1_1, adminv1.HttpProtocol_HTTP_PROTOCOL_2, adminv1.HttpProtocol_HTTP_PROTOCOL_AUTO
	for _, c := range []struct {
		upstream *adminv1.Upstream
		listener adminv1.Protocol
		warning  string // warning about the upstream, or ""
		field    string
	}{
		{upstream(one, 0), adminv1.Protocol_PROTOCOL_HTTP, "", ""},
		{upstream(auto, 0), adminv1.Protocol_PROTOCOL_HTTP, "set http.protocol to HTTP_PROTOCOL_1_1", "r1.tls.renegotiation"},
		{upstream(one, adminv1.TlsVersion_TLS_VERSION_1_3), adminv1.Protocol_PROTOCOL_HTTP, "TLS 1.3, which has no renegotiation", "r1.tls.renegotiation"},
		{upstream(one, 0), adminv1.Protocol_PROTOCOL_TCP, "works for HTTP listeners only", "r2.upstream"},
	} {
		w := newTestbed(t)
		warnings := w.put(w.bundle("trust"), c.upstream, listener("l", "127.0.0.1:0", c.listener, "u"))
		if len(warnings) > 1 || (len(warnings) == 1) != (c.warning != "") {
			t.Fatalf("%q: %v", c.warning, warnings)
		}
		if c.warning != "" && (string(warnings[0].Field) != c.field || !strings.Contains(warnings[0].Message, c.warning)) {
			t.Errorf("%q: %v", c.warning, warnings)
		}
		clients := w.snap.upstreams.Get("u").clients["up.example:443"]
		if !clients.http.Options().RenegotiateOnce || clients.stream.Options().RenegotiateOnce {
			t.Errorf("%q: HTTP %v, TCP %v", c.warning, clients.http.Options().RenegotiateOnce, clients.stream.Options().RenegotiateOnce)
		}
	}
	w := newTestbed(t)
	faults := w.refused(w.bundle("trust"), upstream(two, 0))
	if len(faults) != 1 || !strings.Contains(faults[0].String(), "HTTP/2 forbids renegotiation") {
		t.Errorf("%v", faults)
	}
}
