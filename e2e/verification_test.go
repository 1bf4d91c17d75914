// Verification modes and their reports: REPORT_ONLY accepts and counts the
// peers that FULL would reject, and INSECURE_SKIP causes a warning while it is
// set. Names and pins are checked in addition to the chain. A request for a
// host that the listener's certificates do not cover gets 421.

package e2e

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestReportOnlyPassesAndReports(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	config := a.serverConfig(t)
	web, raw := serveIdentityHTTP(t, config), serveIdentity(t, config)
	g, ops := startGatewayWithOps(t)
	g.apply(trustBundle("ca", a.ca), trustBundle("other", other.ca), certificate("client", a.client),
		withCRLs(trustBundle("crl", a.ca), crl(t, a.ca, a.server)))
	for _, v := range bothVersions {
		for name, c := range map[string]struct {
			change func(u *adminv1.UpstreamTls)
			reason adminv1.Reason
		}{
			"ca":   {func(u *adminv1.UpstreamTls) { u.TrustBundles = []string{"other"} }, adminv1.Reason_REASON_UNKNOWN_CA},
			"name": {func(u *adminv1.UpstreamTls) { u.VerifyName = "pay.example.com" }, adminv1.Reason_REASON_NAME_MISMATCH},
			"crl":  {func(u *adminv1.UpstreamTls) { u.TrustBundles = []string{"crl"} }, adminv1.Reason_REASON_REVOKED},
			"good": {func(*adminv1.UpstreamTls) {}, adminv1.Reason_REASON_UNSPECIFIED},
		} {
			settings := a.settings()
			settings.Verification, settings.MinVersion, settings.MaxVersion = adminv1.Verification_VERIFICATION_REPORT_ONLY, v.ours, v.ours
			c.change(settings)
			name += "-" + v.name
			g.apply(
				upstream("http-"+name, settings, web), listener("http-"+name, protocolHTTP, "http-"+name),
				upstream("tcp-"+name, settings, raw), listener("tcp-"+name, protocolTCP, "tcp-"+name),
			)
			const times = 3 // the first handshake is full, the others are resumed
			for range times {
				if seenHTTP(t, g, "http-"+name, "") == "" || seenTCP(t, g, "tcp-"+name) == "" {
					t.Errorf("%s is not accepted", name)
				}
			}
			for _, u := range []string{"http-" + name, "tcp-" + name} {
				e := g.upstream(u).GetEndpoints()[0]
				if c.reason == adminv1.Reason_REASON_UNSPECIFIED {
					if len(e.GetReported()) != 0 {
						t.Errorf("%s: reported %v", u, e.GetReported())
					}
					continue
				}
				if r := e.GetReported(); len(r) != 1 || r[0].GetReason() != c.reason || r[0].GetCount() != times {
					t.Errorf("%s: reported %v, want %v %d times", u, r, c.reason, times)
				}
				if len(e.GetFailures()) != 0 || e.GetHealth() != adminv1.EndpointHealth_ENDPOINT_HEALTH_UP {
					t.Errorf("%s: %v", u, e)
				}
				eventually(t, "the log reports "+u, func() bool {
					for line := range strings.Lines(g.out.String()) {
						if strings.Contains(line, `"`+u+`"`) && strings.Contains(line, word(c.reason)) {
							return true
						}
					}
					return false
				})
				if p := g.probe(u); p.GetOutcome() != adminv1.ProbeOutcome_PROBE_OUTCOME_OK || !strings.Contains(p.GetExplanation(), "VERIFICATION_REPORT_ONLY") || p.GetSuggestion().GetText() == "" {
					t.Errorf("%s: a probe says %v %q %q", u, p.GetOutcome(), p.GetExplanation(), p.GetSuggestion().GetText())
				}
			}
		}
	}
	if _, metrics := get(t, "http://"+ops+"/metrics"); !strings.Contains(metrics, `reason="REVOKED"`) {
		t.Error("no metric counts the reported failures")
	}
}

func TestInsecureSkipCausesAWarning(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	raw := serveIdentity(t, a.serverConfig(t))
	g, ops := startGatewayWithOps(t)
	settings := &adminv1.UpstreamTls{Certificate: "client", Verification: adminv1.Verification_VERIFICATION_INSECURE_SKIP}
	change := g.apply(certificate("client", a.client), upstream("raw", settings, raw), listener("raw", protocolTCP, "raw"))
	about := func(w []*adminv1.Warning) bool {
		return slices.ContainsFunc(w, func(w *adminv1.Warning) bool { return strings.Contains(w.GetMessage(), "INSECURE_SKIP") })
	}
	if !about(change.GetWarnings()) {
		t.Errorf("the answer warns of %v", change.GetWarnings())
	}
	if seenTCP(t, g, "raw") == "" {
		t.Error("the connection is not accepted")
	}
	g.stop()
	g = g.restart()
	if w := g.getStatus().GetWarnings(); !about(w) {
		t.Errorf("the status warns of %v", w)
	}
	respondsWith := func(sample string) func() bool {
		return func() bool {
			_, metrics := get(t, "http://"+ops+"/metrics")
			return strings.Contains(metrics, sample+"\n")
		}
	}
	eventually(t, "a metric shows the unverified upstream", respondsWith(`drawbridge_upstream_unverified{upstream="raw"} 1`))
	eventually(t, "a metric counts the warning", respondsWith(`drawbridge_gateway_warnings 1`))
	g.apply(trustBundle("ca", a.ca), upstream("raw", a.settings(), raw))
	if w := g.getStatus().GetWarnings(); about(w) {
		t.Errorf("once it is verified the status warns of %v", w)
	}
	eventually(t, "no metric counts the warning any more", respondsWith(`drawbridge_gateway_warnings 0`))
	eventually(t, "no metric shows the upstream any more", respondsWith(`drawbridge_upstream_unverified{upstream="raw"} 0`))
}

func TestMatchingNamesAndPinsPass(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	between := intermediate(t, a.ca)
	server := issue(t, between, pki.LeafOptions{
		CommonName: "pay", DNSNames: []string{"pay.example.com"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, URIs: []string{"spiffe://corp/pay"}, Usage: pki.Server,
	})
	config := a.serverConfig(t)
	config.Certificates = []tls.Certificate{keyPair(t, server)}
	raw := serveIdentity(t, config)
	pin := func(der []byte) string {
		sum := sha256.Sum256(der)
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	none := pin([]byte("no key"))
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), trustBundle("other", newCA(t, "another root")), certificate("client", a.client))
	for name, c := range map[string]struct {
		settings *adminv1.UpstreamTls
		reason   adminv1.Reason
	}{
		"uri":            {&adminv1.UpstreamTls{SubjectAltNames: []string{"URI:spiffe://corp/other", "URI:spiffe://corp/pay"}}, 0},
		"uri-without":    {&adminv1.UpstreamTls{SubjectAltNames: []string{"spiffe://corp/pay"}}, 0},
		"dns":            {&adminv1.UpstreamTls{SubjectAltNames: []string{"DNS:PAY.example.com"}}, 0},
		"ip":             {&adminv1.UpstreamTls{SubjectAltNames: []string{"IP:127.0.0.1"}}, 0},
		"uri-longer":     {&adminv1.UpstreamTls{SubjectAltNames: []string{"URI:spiffe://corp/pay/x"}}, adminv1.Reason_REASON_NAME_MISMATCH},
		"uri-as-dns":     {&adminv1.UpstreamTls{SubjectAltNames: []string{"DNS:pay"}}, adminv1.Reason_REASON_NAME_MISMATCH}, // equal to the common name
		"address":        {&adminv1.UpstreamTls{}, 0},
		"pin-leaf":       {&adminv1.UpstreamTls{SpkiPins: []string{none, pin(server.Leaf.RawSubjectPublicKeyInfo)}}, 0},
		"pin-ca":         {&adminv1.UpstreamTls{SpkiPins: []string{pin(between.Certificate().RawSubjectPublicKeyInfo)}}, 0},
		"pin-wrong":      {&adminv1.UpstreamTls{SpkiPins: []string{none}}, adminv1.Reason_REASON_PIN_MISMATCH},
		"pin-no-chain":   {&adminv1.UpstreamTls{TrustBundles: []string{"other"}, SpkiPins: []string{pin(server.Leaf.RawSubjectPublicKeyInfo)}}, adminv1.Reason_REASON_UNKNOWN_CA},
		"pin-wrong-name": {&adminv1.UpstreamTls{VerifyName: "x.example.com", SpkiPins: []string{pin(server.Leaf.RawSubjectPublicKeyInfo)}}, adminv1.Reason_REASON_NAME_MISMATCH},
	} {
		c.settings.Certificate = "client"
		if c.settings.TrustBundles == nil {
			c.settings.TrustBundles = []string{"ca"}
		}
		g.apply(upstream(name, c.settings, raw), listener(name, protocolTCP, name))
		for range 2 {
			if seen := seenTCP(t, g, name); (seen != "") != (c.reason == 0) {
				t.Errorf("%s: the upstream is seen as %q", name, seen)
			}
		}
		if c.reason != 0 {
			expectReason(t, g, name, c.reason)
		}
		expectProbe(t, g, name, c.reason, nil, nil)
	}
}

// A client whose handshake was for one name cannot use the same connection for
// a host with another policy.
func TestAHostThatTheListenerDoesNotServeIsMisdirected(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("reached"))
	g := startGateway(t)
	secure := listener("web", protocolHTTP, "web")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, RejectUnknownSni: true}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", serverCert(t, a.ca, "*.open.example.com")),
		upstream("web", a.settings(), web), secure,
	)
	address := g.address("web")
	for _, protocol := range []string{"http/1.1", "h2"} {
		transport := &http.Transport{
			ForceAttemptHTTP2: protocol == "h2",
			TLSClientConfig:   &tls.Config{RootCAs: pool(a.ca), ServerName: "www.open.example.com", NextProtos: []string{protocol}},
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", address)
			},
		}
		t.Cleanup(transport.CloseIdleConnections)
		for host, want := range map[string]int{
			"www.open.example.com": 200, "WWW.open.example.com.": 200, "other.open.example.com:8443": 200,
			"secret.example.com": 421, "open.example.com": 421, "a.b.open.example.com": 421, "SECRET.example.com.": 421, "www.open.example.com.evil.test": 421,
		} {
			req, err := http.NewRequestWithContext(longContext(t), http.MethodGet, "https://www.open.example.com/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", host, err)
			}
			if body, err := readBody(resp); err != nil || resp.StatusCode != want || (want == 200) != (body == "reached") {
				t.Errorf("%s, %s: %d %q, %v, want %d", protocol, host, resp.StatusCode, body, err, want)
			}
			if fmt.Sprint("HTTP/", map[string]string{"h2": "2.0", "http/1.1": "1.1"}[protocol]) != resp.Proto {
				t.Errorf("the protocol is %s", resp.Proto)
			}
		}
	}
}
