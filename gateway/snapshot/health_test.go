package snapshot

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// described returns a copy of an upstream with the fields in text.
func described(t *testing.T, base *adminv1.Upstream, text string) *adminv1.Upstream {
	t.Helper()
	u := proto.Clone(base).(*adminv1.Upstream)
	if err := (prototext.UnmarshalOptions{}).Unmarshal([]byte(text), u); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	proto.Merge(u, base)
	u.Endpoints = base.GetEndpoints()
	return u
}

// checkFaults puts an upstream for each text, and checks that its faults are at the
// given fields. No fields mean no fault.
func checkFaults(t *testing.T, tests []struct{ what, text, fields string }, transports map[string]*adminv1.Upstream) {
	w := newTestbed(t)
	w.put(w.bundle("trust"))
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			w.t = t
			kind, text, _ := strings.Cut(test.text, ": ")
			u := described(t, transports[kind], text)
			if test.fields == "" {
				w.put(u)
				return
			}
			var fields []string
			for _, f := range w.refused(u) {
				fields = append(fields, strings.TrimPrefix(string(f.Field), "r0."))
				if f.Message == "" {
					t.Errorf("%s: no message", f.Field)
				}
			}
			slices.Sort(fields)
			if got := strings.Join(fields, " "); got != test.fields {
				t.Errorf("faults at %s, want %s", got, test.fields)
			}
		})
	}
}

func transports() map[string]*adminv1.Upstream {
	plain := tlsUpstream("u", nil)
	plain.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
	pass := passthroughUpstream("u")
	secure := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	fromHost := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}, ServerNameSource: adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST})
	addresses := proto.Clone(fromHost).(*adminv1.Upstream)
	addresses.Endpoints = []*adminv1.Endpoint{{Address: "a.example:443"}, {Address: "10.0.0.1:443"}}
	verified := proto.Clone(addresses).(*adminv1.Upstream)
	verified.GetTls().VerifyName = "up.example"
	socket := proto.Clone(verified).(*adminv1.Upstream)
	socket.Endpoints = []*adminv1.Endpoint{{Address: "unix:/run/s"}}
	drained := proto.Clone(fromHost).(*adminv1.Upstream)
	drained.Endpoints = []*adminv1.Endpoint{{Address: "a.example:443"}, {Address: "10.0.0.1:443", Draining: true}}
	byDNS := proto.Clone(fromHost).(*adminv1.Upstream)
	byDNS.Endpoints, byDNS.Dns = nil, &adminv1.Dns{Hostname: "a.example", Port: 443}
	return map[string]*adminv1.Upstream{
		"plain": plain, "pass": pass, "tls": secure, "host": fromHost, "host10": addresses, "verified": verified, "socket": socket, "drained": drained, "dns": byDNS,
	}
}

func TestMisplacedHealthChecksAreRefused(t *testing.T) {
	checkFaults(t, []struct{ what, text, fields string }{
		{"a check over TCP", "tls: health_check { tcp {} }", ""},
		{"TCP in plaintext", "plain: health_check { tcp {} }", ""},
		{"TCP with passthrough", "pass: health_check { tcp {} }", ""},
		{"a handshake", "tls: health_check { tls {} }", ""},
		{"a request", "tls: health_check { http {} }", ""},
		{"a request in plaintext", "plain: health_check { http {} }", ""},
		{"a call", "tls: health_check { grpc { service: 'pay' } }", ""},
		{"a call in plaintext", "plain: health_check { grpc {} }", ""},
		{"every field of a request", `tls: health_check { http { path: '/well?a=b' host: 'a.example:8443' method: 'GET' codes { first: 200 last: 299 } codes { first: 401 } body_contains: 'ok' }
			interval { nanos: 100000000 } timeout { seconds: 1 } healthy_threshold: 1 unhealthy_threshold: 100 }`, ""},
		{"HEAD", "tls: health_check { http { method: 'HEAD' } }", ""},
		{"an address as host", "tls: health_check { http { host: '[::1]' } }", ""},

		{"a check without a kind", "tls: health_check {}", "health_check"},
		{"interval, timeout and thresholds out of bounds", "tls: health_check { tcp {} interval { nanos: 1000000 } timeout {} healthy_threshold: 101 unhealthy_threshold: 101 }",
			"health_check.healthy_threshold health_check.interval health_check.timeout health_check.unhealthy_threshold"},
		{"a handshake in plaintext", "plain: health_check { tls {} }", "health_check.tls"},
		{"a handshake with passthrough", "pass: health_check { tls {} }", "health_check.tls"},
		{"a request with passthrough", "pass: health_check { http {} }", "health_check.http"},
		{"a call with passthrough", "pass: health_check { grpc {} }", "health_check.grpc"},
		{"invalid fields of a request", `tls: health_check { http { path: 'well' host: 'a b' method: 'POST' codes { first: 100 } codes { first: 300 last: 200 } codes { first: 200 last: 600 } } }`,
			"health_check.http.codes[0] health_check.http.codes[1] health_check.http.codes[2] health_check.http.host health_check.http.method health_check.http.path"},
		{"a fragment", "tls: health_check { http { path: '/#a' } }", "health_check.http.path"},
		{"a blank", "tls: health_check { http { path: '/a b' } }", "health_check.http.path"},
		{"line breaks", "tls: health_check { http { path: '/a\\r\\nb' host: 'a\\r\\nb' } }", "health_check.http.host health_check.http.path"},
		{"a broken escape", "tls: health_check { http { path: '/%zz' } }", "health_check.http.path"},
		{"the body of a response to HEAD", "tls: health_check { http { method: 'HEAD' body_contains: 'ok' } }", "health_check.http.body_contains"},
		{"an invalid service", "tls: health_check { grpc { service: 'a b' } }", "health_check.grpc.service"},
		{"a call in HTTP/1.1", "tls: health_check { grpc {} } http { protocol: HTTP_PROTOCOL_1_1 }", "health_check.grpc"},
		{"a call that is not negotiated", "tls: health_check { grpc {} } tls { alpn: 'http/1.1' }", "health_check.grpc"},

		{"the server name is the endpoint's name", "host: health_check { tls {} }", ""},
		{"the server name is the check's host", "host10: health_check { http { host: 'a.example' } }", ""},
		{"a name from DNS", "dns: health_check { grpc {} }", ""},
		{"a fixed name is verified", "verified: health_check { tls {} }", ""},
		{"a TCP check needs no server name", "host10: health_check { tcp {} }", ""},
		{"a draining endpoint needs no server name", "drained: health_check { tls {} }", ""},
		{"a handshake without a server name", "host10: health_check { tls {} }", "health_check.tls"},
		{"a request without a server name", "host10: health_check { http {} }", "health_check.http"},
		{"a call without a server name", "host10: health_check { grpc {} }", "health_check.grpc"},
		{"a path is not a name", "socket: health_check { tls {} }", "health_check.tls"},
	}, transports())
}

func TestMisplacedOutlierDetectionIsRefused(t *testing.T) {
	checkFaults(t, []struct{ what, text, fields string }{
		{"by default", "tls: outlier_detection {}", ""},
		{"in plaintext", "plain: outlier_detection { consecutive_failures: 3 }", ""},
		{"failures with passthrough", "pass: outlier_detection {}", ""},
		{"everything", `tls: outlier_detection { consecutive_failures: 3 consecutive_handshake_failures: 2 handshake_reasons: [REASON_EXPIRED, REASON_UNKNOWN_CA]
			error_rate { percent: 100 window { seconds: 30 } min_requests: 100 } base_ejection { seconds: 1 } max_ejection { seconds: 1 } max_ejected_percent: 100 }`, ""},
		{"only the error rate", "tls: outlier_detection { consecutive_failures: 0 error_rate { percent: 1 } }", ""},
		{"handshakes alone", "tls: outlier_detection { consecutive_failures: 0 consecutive_handshake_failures: 3 }", ""},

		{"neither responses nor handshakes are counted", "tls: outlier_detection { consecutive_failures: 0 }", "outlier_detection"},
		{"handshakes in plaintext", "plain: outlier_detection { consecutive_handshake_failures: 1 handshake_reasons: REASON_EXPIRED }",
			"outlier_detection.consecutive_handshake_failures outlier_detection.handshake_reasons"},
		{"handshakes with passthrough", "pass: outlier_detection { consecutive_handshake_failures: 1 }", "outlier_detection.consecutive_handshake_failures"},
		{"reasons that no handshake can have", "tls: outlier_detection { handshake_reasons: [REASON_UNSPECIFIED, REASON_CONNECT_REFUSED, REASON_CHECK_FAILED, REASON_EXPIRED, REASON_EXPIRED] }",
			"outlier_detection.handshake_reasons[0] outlier_detection.handshake_reasons[1] outlier_detection.handshake_reasons[2] outlier_detection.handshake_reasons[4]"},
		{"an unknown reason", "tls: outlier_detection { handshake_reasons: 99 }", "outlier_detection.handshake_reasons[0]"},
		{"reasons that depend on the host", "host: outlier_detection { handshake_reasons: [REASON_NAME_MISMATCH, REASON_EXPIRED] }", "outlier_detection.handshake_reasons[0]"},
		{"out of bounds", `tls: outlier_detection { consecutive_failures: 1000001 consecutive_handshake_failures: 1000001 error_rate { percent: 101 window { nanos: 1 } min_requests: 1000001 } max_ejected_percent: 101 }`,
			"outlier_detection.consecutive_failures outlier_detection.consecutive_handshake_failures outlier_detection.error_rate.min_requests outlier_detection.error_rate.percent outlier_detection.error_rate.window outlier_detection.max_ejected_percent"},
		{"an ejection limit of 0 percent", "tls: outlier_detection { error_rate {} max_ejected_percent: 0 }", "outlier_detection.error_rate.percent outlier_detection.max_ejected_percent"},
		{"the first ejection is longer than the default maximum", "tls: outlier_detection { base_ejection { seconds: 301 } }", "outlier_detection.max_ejection"},
		{"the first ejection is longer than the configured maximum", "tls: outlier_detection { base_ejection { seconds: 2 } max_ejection { seconds: 1 } }", "outlier_detection.max_ejection"},
	}, transports())
}

// The health of endpoints survives new revisions as long as the check is the same.
func TestHealthSurvivesAnEqualCheck(t *testing.T) {
	u := transports()["tls"]
	base := kindOf(described(t, u, "health_check { http { path: '/a' } }"))
	for text, same := range map[string]bool{
		"health_check { http { path: '/a' } interval { seconds: 1 } healthy_threshold: 7 }":      true,
		"health_check { http { path: '/a' } } pool { warm: 3 } tls { verify_name: 'x.example' }": true,
		"health_check { http { path: '/b' } }":                                                   false,
		"health_check { http { path: '/a' codes { first: 200 } } }":                              false,
		"health_check { tcp {} }": false,
	} {
		if got := kindOf(described(t, u, text)) == base; got != same {
			t.Errorf("%s: health kept: %v", text, got)
		}
	}
	if kindOf(described(t, transports()["plain"], "health_check { http { path: '/a' } }")) == base {
		t.Error("the health survived a change from TLS to plaintext")
	}
}

func TestEndpointsThatTakeNoTrafficAreExplained(t *testing.T) {
	w := newTestbed(t)
	u := described(t, transports()["plain"], "health_check { tcp {} }")
	u.Endpoints = append(u.Endpoints, &adminv1.Endpoint{Address: "b.example:80", Draining: true})
	w.put(u, listener("web", "127.0.0.1:1", httpP, "u"))
	var bad invalid.List
	endpoints := w.snap.Explain(&adminv1.ExplainRouteRequest{Listener: "web"}, &bad).GetUpstreams()[0].GetEndpoints()
	if endpoints[0].GetUnavailableReason() != "its first health check has not been answered yet" || endpoints[1].GetUnavailableReason() != "draining" {
		t.Errorf("%v", endpoints)
	}
}
