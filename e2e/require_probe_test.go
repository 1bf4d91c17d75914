// A write with require_probe is live only if the affected endpoints complete a
// handshake with the new settings. Otherwise the configuration stays unchanged,
// and the error has the results of the probes. All calls use grpcurl.

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestWritesThatRequireProbes(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	good := serveHTTPS(t, a.serverConfig(t), respondsWith("good"))
	bad := serveHTTPS(t, other.serverConfig(t), respondsWith("bad"))
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))

	document := func(options string, addresses ...string) string {
		var endpoints []string
		for _, address := range addresses {
			endpoints = append(endpoints, fmt.Sprintf(`{"address": %q}`, address))
		}
		return fmt.Sprintf(`{"upstream": {"name": "payments", "endpoints": [%s],
			"tls": {"certificate": "client", "trustBundles": ["ca"], "serverName": %q}}, "options": {%s}}`,
			strings.Join(endpoints, ", "), serverName, options)
	}
	const admin = "drawbridge.admin.v1.AdminService/"
	refused := func(what, method, request string, facts ...string) {
		t.Helper()
		before := g.getStatus().GetRevision()
		r := g.grpcurlRaw(request, admin+method)
		for _, fact := range append(facts, "FailedPrecondition", "ProbeUpstreamResponse") {
			if !strings.Contains(r.stdout+r.stderr, fact) {
				t.Errorf("%s: the error lacks %q: %s", what, fact, r)
			}
		}
		if after := g.getStatus().GetRevision(); r.code == 0 || after != before {
			t.Errorf("%s: exit code %d, revision %d became %d", what, r.code, before, after)
		}
	}

	refused("a bad endpoint, any", "PutUpstream", document(`"requireProbe": "REQUIRE_PROBE_ANY"`, bad), "REASON_UNKNOWN_CA", bad)
	refused("a bad endpoint, all", "PutUpstream", document(`"requireProbe": "REQUIRE_PROBE_ALL"`, bad), "REASON_UNKNOWN_CA", bad)
	refused("one of two, all", "PutUpstream", document(`"requireProbe": "REQUIRE_PROBE_ALL"`, good, bad), "REASON_UNKNOWN_CA", bad)
	refused("a dry run", "PutUpstream", document(`"requireProbe": "REQUIRE_PROBE_ALL", "dryRun": true`, bad), "REASON_UNKNOWN_CA")
	if counts := g.getStatus().GetCounts(); counts.GetUpstreams() != 0 {
		t.Errorf("a refused upstream was stored: %v", counts)
	}
	g.grpcurl("PutUpstream", document(`"requireProbe": "REQUIRE_PROBE_ANY"`, good, bad))
	g.grpcurl("PutUpstream", document(`"requireProbe": "REQUIRE_PROBE_ALL"`, good))
	g.grpcurl("PutListener", `{"listener": {"name": "payments", "address": "127.0.0.1:0", "protocol": "PROTOCOL_HTTP", "upstream": "payments"},
		"options": {"requireProbe": "REQUIRE_PROBE_ALL"}}`)

	// A change of a resource that an upstream uses affects the upstream too.
	stranger := fmt.Sprintf(`{"certificate": {"name": "client", "pem": {"certificateChain": %s, "privateKey": %s}}, "options": {"requireProbe": "REQUIRE_PROBE_ALL"}}`,
		quote(other.client.ChainPEM), quote(other.client.KeyPEM))
	refused("a certificate that the upstream rejects", "PutCertificate", stranger, "REASON_CLIENT_CERTIFICATE_REJECTED", good)
	trust := fmt.Sprintf(`{"trustBundle": {"name": "ca", "pem": %s}, "options": {"requireProbe": "REQUIRE_PROBE_ANY"}}`, quote(other.ca.RootPEM()))
	refused("a trust that the upstream does not have", "PutTrustBundle", trust, "REASON_UNKNOWN_CA", good)
	next := clientCert(t, a.ca, "next")
	refused("both at once", "Apply", fmt.Sprintf(`{"resources": [
		{"certificate": {"name": "client", "pem": {"certificateChain": %s, "privateKey": %s}}},
		{"upstream": {"name": "other", "endpoints": [{"address": %q}], "tls": {"certificate": "client", "trustBundles": ["ca"], "serverName": %q}}}
		], "options": {"requireProbe": "REQUIRE_PROBE_ALL"}}`, quote(next.ChainPEM), quote(next.KeyPEM), bad, serverName), "REASON_UNKNOWN_CA", bad)

	g.grpcurl("PutCertificate", fmt.Sprintf(`{"certificate": {"name": "client", "pem": {"certificateChain": %s, "privateKey": %s}}, "options": {"requireProbe": "REQUIRE_PROBE_ALL"}}`,
		quote(next.ChainPEM), quote(next.KeyPEM)))
	if code, body := get(t, "http://"+g.address("payments")+"/"); code != 200 || body != "good" {
		t.Errorf("the upstream that completed the handshake: %d %q", code, body)
	}
}
