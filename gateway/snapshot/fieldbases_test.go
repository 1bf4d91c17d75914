package snapshot

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// parse parses a resource in text format.
func parse[R store.Resource](t *testing.T, into R, text string) R {
	t.Helper()
	if err := prototext.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
	return into
}

const (
	serverTLS = `tls {
		certificates: "server" client_auth: CLIENT_AUTH_REQUIRED client_trust_bundles: "trust" client_subject_alt_names: "DNS:a.example" allow_missing_client_auth_usage: true
		min_version: TLS_VERSION_1_1 max_version: TLS_VERSION_1_3 cipher_suites: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" groups: "P-256"
		revalidation { action: REVALIDATION_ACTION_DRAIN grace { seconds: 5 } }
		policies {
			hosts: "p.example" certificates: "server" client_auth: CLIENT_AUTH_OPTIONAL client_trust_bundles: "trust" client_subject_alt_names: "DNS:a.example" allow_missing_client_auth_usage: true
			min_version: TLS_VERSION_1_1 max_version: TLS_VERSION_1_3 cipher_suites: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" groups: "P-256"
		}
		policies { hosts: "q.example" certificates: "server2" }
	}`
	bothLimits = `connections: 3 connections_per_client: 2 rate { count: 5 period { seconds: 2 } burst: 6 } rate_per_client { count: 5 period { seconds: 2 } burst: 6 }`
	access     = `access { allow: "10.0.0.0/8" deny: "10.1.0.0/16" } accept_proxy_protocol { trusted_sources: "192.0.2.1" }`

	upstreamTLS = `tls {
		certificate: "client2" trust_bundles: "trust" verify_depth: 3 server_name: "up.example" subject_alt_names: "DNS:up.example"
		spki_pins: "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA=" min_version: TLS_VERSION_1_1 max_version: TLS_VERSION_1_3
		cipher_suites: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" groups: "P-256" session_reuse: false renegotiation: RENEGOTIATION_ONCE
		revalidation { action: REVALIDATION_ACTION_DRAIN grace { seconds: 5 } }
	}`
	endpoints = `endpoints { address: "a.example:443" weight: 3 } endpoints { address: "b.example:443" backup: true } endpoints { address: "c.example:443" draining: true }`
	traffic   = `
		outlier_detection {
			consecutive_failures: 4 consecutive_handshake_failures: 3 handshake_reasons: REASON_EXPIRED
			error_rate { percent: 50 window { seconds: 5 } min_requests: 30 } base_ejection { seconds: 3 } max_ejection { seconds: 60 } max_ejected_percent: 40
		}
		limits {
			requests: 100 requests_per_endpoint: 50 connections: 90 connections_per_endpoint: 45 pending: 10 pending_timeout { seconds: 2 }
			retry_budget { percent: 30 min_retries: 2 }
		}`
)

// fieldBases returns resources that together set every field of the API.
func fieldBases(t *testing.T) map[string]fieldBase {
	w := newTestbed(t)
	common := []store.Resource{
		w.bundle("trust"), newTestbed(t).bundle("trust2"), w.server("server"), w.server("server2"), w.client("client"), w.client("client2"),
		passthroughUpstream("pass"), tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}), tlsUpstream("other", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}),
		tlsUpstream("bridge", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}}),
	}
	with := func(rs ...store.Resource) []store.Resource {
		return append(append([]store.Resource(nil), common...), rs...)
	}
	tcpListener, httpListener := listener("tcp", "127.0.0.1:11", tcp, "u"), listener("http", "127.0.0.1:12", httpP, "u")
	listeners := with(tcpListener, httpListener, listener("other", "127.0.0.1:13", httpP, ""))
	mutual := parse(t, &adminv1.Listener{}, `name: "mutual" address: "127.0.0.1:14" protocol: PROTOCOL_HTTP `+serverTLS)
	l := func(text string) *adminv1.Listener { return parse(t, &adminv1.Listener{}, text) }
	r := func(text string) *adminv1.Route { return parse(t, &adminv1.Route{}, text) }
	u := func(text string) *adminv1.Upstream { return parse(t, &adminv1.Upstream{}, text) }
	return map[string]fieldBase{
		"an HTTP listener": {subject: l(`name: "l" address: "127.0.0.1:1" protocol: PROTOCOL_HTTP upstream: "u"` + serverTLS + access + `
			limits { requests: 9 requests_per_client: 8 ` + bothLimits + ` }
			timeouts { handshake { seconds: 1 } idle { seconds: 2 } header_read { seconds: 3 } }
			http {
				max_header_bytes: 4096 max_header_fields: 100 max_body_bytes: 1000 max_requests_per_connection: 50 max_connection_age { seconds: 60 }
				trusted_proxies: "10.0.0.1" request_id_field: "X-Id"
			}`), others: common},
		"an HTTP listener without options": {subject: l(`name: "l" address: "127.0.0.1:1" protocol: PROTOCOL_HTTP`), others: common},
		"a TCP listener": {subject: l(`name: "l" address: "127.0.0.1:1" protocol: PROTOCOL_TCP upstream: "u"` + serverTLS + access + `
			limits { ` + bothLimits + ` } timeouts { handshake { seconds: 1 } idle { seconds: 2 } } tcp { linger { seconds: 1 } max_connection_age { seconds: 60 } }`), others: common},
		"a listener on a unix socket":    {subject: l(`name: "l" address: "unix:/l.sock" protocol: PROTOCOL_TCP unix { mode: "0660" group: "0" }`), others: common},
		"a TCP listener without options": {subject: l(`name: "l" address: "127.0.0.1:1" protocol: PROTOCOL_TCP`), others: common},

		"a route for requests": {subject: r(`name: "r" listeners: "http" match { hosts: "x.example" path { prefix: "/x/" } methods: "GET" headers { name: "X-A" exact: "1" } }
			forward {
				upstreams { name: "u" weight: 1 } upstreams { name: "bridge" weight: 2 } timeout { seconds: 1 } total_timeout { seconds: 2 } rewrite { prefix: "/" }
				retry { attempts: 3 on: RETRY_CONDITION_RESET codes: 503 per_try_timeout { nanos: 500000000 } methods: "PATCH" max_body_bytes: 1000 backoff { nanos: 1000000 } }
			}
			request_headers { remove: "X-B" set { name: "X-C" value: "1" } add { name: "X-D" value: "${host}" } }
			response_headers { remove: "X-B" set { name: "X-C" value: "1" } add { name: "X-D" value: "${endpoint}" } }`), others: listeners, same: []string{"match.path.exact", "match.path.regex"}}, // fields that the other routes set
		"a route by a regular expression": {subject: r(`name: "r" listeners: "http" match { path { regex: "/x+" } }
			forward { upstreams { name: "u" } rewrite { regex { pattern: "x(.)" substitution: "$1" } } }`), others: listeners},
		"a route by an exact path": {subject: r(`name: "r" listeners: "http" match { path { exact: "/x" } headers { name: "X-A" } } forward { upstreams { name: "u" } rewrite { path: "/" } }`), others: listeners},
		"a route by client identity": {subject: r(`name: "r" listeners: "mutual" match { client_identity {
			subject_alt_names: "DNS:a.example" sha256_fingerprints: "` + strings.Repeat("ab", 32) + `" issuer: "CN=a" } } forward { upstreams { name: "u" } }`), others: with(mutual)},
		"a redirect":                  {subject: r(`name: "r" listeners: "http" redirect { code: 301 scheme: "http" host: "x.example" path: "/x" }`), others: listeners},
		"a fixed response":            {subject: r(`name: "r" listeners: "http" respond { code: 201 body: "x" content_type: "text/html" }`), others: listeners},
		"a route for TCP connections": {subject: r(`name: "r" listeners: "tcp" forward { upstreams { name: "u" weight: 1 } upstreams { name: "other" weight: 2 } retry { attempts: 3 per_try_timeout { seconds: 1 } } }`), others: listeners},

		"an upstream": {subject: u(`name: "u" ` + endpoints + upstreamTLS + traffic + `
			pool { max_idle: 5 idle_timeout { seconds: 20 } max_age { seconds: 100 } warm: 2 }
			timeouts { connect { seconds: 1 } handshake { seconds: 2 } idle { seconds: 3 } }
			http { protocol: HTTP_PROTOCOL_1_1 } balancing { slow_start { seconds: 3 } }
			health_check { http { path: "/x" host: "x.example" codes { first: 200 last: 204 } body_contains: "x" } interval { seconds: 1 } timeout { seconds: 2 } healthy_threshold: 1 unhealthy_threshold: 2 }`), others: listeners[:6]},
		"an upstream without options": {subject: u(`name: "u" endpoints { address: "a.example:443" }`), others: common[:6], same: []string{"tls = {}"}},
		"an upstream that hashes a header": {subject: u(`name: "u" endpoints { address: "a.example:443" } plaintext {}
			balancing { policy: BALANCING_POLICY_CONSISTENT_HASH hash { header: "X-A" } } health_check { grpc { service: "x" } }`), others: common[:6]},
		"an upstream that hashes a cookie": {subject: u(`name: "u" endpoints { address: "a.example:443" } tls { trust_bundles: "trust" } tcp { server_speaks_first: true }
			balancing { policy: BALANCING_POLICY_CONSISTENT_HASH hash { cookie: "a" } } health_check { tls {} }`), others: common[:6], same: []string{"tls.session_reuse = true", "tcp.server_speaks_first = false"}},
		"an upstream that uses STARTTLS": {subject: u(`name: "u" endpoints { address: "a.example:389" } tls { trust_bundles: "trust" starttls: STARTTLS_LDAP } pool { warm: 1 }`),
			others: common[:6], same: []string{"tls.session_reuse = true", "plaintext", "passthrough"}},
		"an upstream behind an HTTP proxy": {subject: u(`name: "u" endpoints { address: "a.example:443" } tls { trust_bundles: "trust" }
			via { http_connect { address: "proxy.example:3128" credentials { username: "a" password: "b" } tls { trust_bundles: "trust" server_name: "p.example" certificate: "client2" } } }`),
			others: common[:6], same: []string{"tls.", "plaintext", "passthrough"}},
		"an upstream behind a SOCKS proxy": {subject: u(`name: "u" endpoints { address: "a.example:443" } tls { trust_bundles: "trust" }
			via { socks5 { address: "proxy.example:1080" credentials { username: "a" password: "b" } } }`), others: common[:6], same: []string{"tls.", "plaintext", "passthrough"}},
		"an upstream from a DNS name":  {subject: u(`name: "u" dns { hostname: "a.example" port: 443 refresh { seconds: 5 } servers: "127.0.0.1:5353" } tls { trust_bundles: "trust" }`), others: common[:6], same: []string{"tls."}},
		"an upstream from SRV records": {subject: u(`name: "u" dns { srv: "_x._tcp.example.com" } tls { trust_bundles: "trust" }`), others: common[:6], same: []string{"tls."}},
		"a passthrough upstream":       {subject: u(`name: "u" endpoints { address: "a.example:443" } passthrough {} health_check { tcp {} }`), others: common[:6], same: []string{"plaintext = {}"}},
	}
}
