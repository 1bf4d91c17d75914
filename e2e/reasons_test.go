// Every reason for a failed handshake is reported in the same way, with TLS 1.2
// and 1.3, over HTTP and TCP. The client gets 502 (504 for a timeout) or a
// closed connection, and no byte from the upstream. The log, the status, a
// probe and the command line show the reason, with the facts and the field to
// set.

package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// bothVersions are the TLS versions of a handshake.
var bothVersions = []struct {
	name  string
	ours  adminv1.TlsVersion
	wire  uint16
	below uint16
}{
	{"1-2", adminv1.TlsVersion_TLS_VERSION_1_2, tls.VersionTLS12, tls.VersionTLS11},
	{"1-3", adminv1.TlsVersion_TLS_VERSION_1_3, tls.VersionTLS13, tls.VersionTLS12},
}

// A reasonCase changes one thing about two compatible peers.
type reasonCase struct {
	name          string
	change        func(server *tls.Config, settings *adminv1.UpstreamTls)
	reason        adminv1.Reason
	facts, advice []string // texts of the probe
	only          uint16   // the TLS version of the case; 0 for both
}

func TestEveryReasonOfAHandshake(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	other := newCA(t, "another root")
	between := intermediate(t, a.ca)
	stranger := clientCert(t, other, "stranger")
	listed := serverCert(t, a.ca, serverName)
	now, hour, day := time.Now(), time.Hour, 24*time.Hour
	leaf := func(from *pki.CA, o pki.LeafOptions) tls.Certificate {
		if o.CommonName == "" {
			o.CommonName = serverName
		}
		if len(o.DNSNames) == 0 {
			o.DNSNames = []string{serverName}
		}
		return keyPair(t, issue(t, from, o))
	}
	bad := leaf(a.ca, pki.LeafOptions{})
	bad.Certificate = [][]byte{[]byte("this is not a certificate")}
	pin := sha256.Sum256([]byte("some other key"))

	cases := []reasonCase{
		{
			name: "good", change: func(*tls.Config, *adminv1.UpstreamTls) {},
			facts: []string{"completed the handshake", serverName},
		},
		{
			name:   "unknown-ca",
			change: func(_ *tls.Config, u *adminv1.UpstreamTls) { u.TrustBundles = []string{"other"} },
			reason: adminv1.Reason_REASON_UNKNOWN_CA,
			facts:  []string{"CN=" + serverName, "CN=e2e root", `"ca"`},
			advice: []string{"tls.trust_bundles", `"ca"`},
		},
		{
			name: "missing-intermediate",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) {
				c := leaf(between, pki.LeafOptions{})
				c.Certificate = c.Certificate[:1]
				s.Certificates = []tls.Certificate{c}
			},
			reason: adminv1.Reason_REASON_UNKNOWN_CA,
			facts:  []string{"one certificate", "CN=Drawbridge intermediate CA"},
			advice: []string{"have the upstream send", "CN=Drawbridge intermediate CA"},
		},
		{
			name: "expired",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(a.ca, pki.LeafOptions{NotBefore: now.Add(-9 * day), NotAfter: now.Add(-3*day - hour)})}
			},
			reason: adminv1.Reason_REASON_EXPIRED,
			facts:  []string{"CN=" + serverName, "3 days ago"},
			advice: []string{"renew the certificate"},
		},
		{
			name: "not-yet-valid",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(a.ca, pki.LeafOptions{NotBefore: now.Add(4*day + hour), NotAfter: now.Add(9 * day)})}
			},
			reason: adminv1.Reason_REASON_NOT_YET_VALID,
			facts:  []string{"CN=" + serverName, "not valid before", "in 4 days"},
			advice: []string{"valid now"},
		},
		{
			name: "clock-skew",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(a.ca, pki.LeafOptions{NotBefore: now.Add(3*hour + 5*time.Minute), NotAfter: now.Add(9 * day)})}
			},
			reason: adminv1.Reason_REASON_NOT_YET_VALID,
			facts:  []string{"in 3 hours", "clock may be slow"},
			advice: []string{"clock"},
		},
		{
			name: "name-mismatch",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(a.ca, pki.LeafOptions{DNSNames: []string{"a.example", "b.example"}})}
				u.VerifyName = "pay.example"
			},
			reason: adminv1.Reason_REASON_NAME_MISMATCH,
			facts:  []string{"the certificate is for a.example, b.example; we verify pay.example"},
			advice: []string{`set tls.verify_name to "a.example"`},
		},
		{
			name:   "san-mismatch",
			change: func(_ *tls.Config, u *adminv1.UpstreamTls) { u.SubjectAltNames = []string{"URI:spiffe://corp/pay"} },
			reason: adminv1.Reason_REASON_NAME_MISMATCH,
			facts:  []string{serverName, "URI:spiffe://corp/pay"},
			advice: []string{"tls.subject_alt_names", "DNS:" + serverName},
		},
		{
			name: "no-sni-name-mismatch",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(a.ca, pki.LeafOptions{DNSNames: []string{"a.example"}})}
				u.ServerNameSource = adminv1.ServerNameSource_SERVER_NAME_SOURCE_NONE
			},
			reason: adminv1.Reason_REASON_NAME_MISMATCH,
			facts:  []string{"a.example", serverName},
		},
		{
			name: "depth-exceeded",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(between, pki.LeafOptions{})}
				u.VerifyDepth = proto.Int32(0)
			},
			reason: adminv1.Reason_REASON_DEPTH_EXCEEDED,
			facts:  []string{"1 intermediate", "allows 0"},
			advice: []string{"set tls.verify_depth to 1"},
		},
		{
			name: "wrong-key-usage",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(a.ca, pki.LeafOptions{Usage: pki.Client})}
			},
			reason: adminv1.Reason_REASON_WRONG_KEY_USAGE,
			facts:  []string{"CN=" + serverName, "clientAuth"},
			advice: []string{"serverAuth"},
		},
		{
			name: "revoked",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{keyPair(t, listed)}
				u.TrustBundles = []string{"with-crl"}
			},
			reason: adminv1.Reason_REASON_REVOKED,
			facts:  []string{"CN=" + serverName, "revoked"},
		},
		{
			name:   "crl-expired",
			change: func(_ *tls.Config, u *adminv1.UpstreamTls) { u.TrustBundles = []string{"old-crl"} },
			reason: adminv1.Reason_REASON_CRL_EXPIRED,
			facts:  []string{"CN=e2e root"},
		},
		{
			name: "crl-missing",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				s.Certificates = []tls.Certificate{leaf(between, pki.LeafOptions{})}
				u.TrustBundles = []string{"with-crl"}
			},
			reason: adminv1.Reason_REASON_CRL_EXPIRED,
			facts:  []string{"CN=Drawbridge intermediate CA"},
		},
		{
			name: "pin-mismatch",
			change: func(_ *tls.Config, u *adminv1.UpstreamTls) {
				u.SpkiPins = []string{base64.StdEncoding.EncodeToString(pin[:])}
			},
			reason: adminv1.Reason_REASON_PIN_MISMATCH,
			facts:  []string{"CN=" + serverName},
			advice: []string{"tls.spki_pins"},
		},
		{
			name: "no-common-version",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				s.MinVersion, s.MaxVersion = tls.VersionTLS10, versionBelow(u.MinVersion)
			},
			reason: adminv1.Reason_REASON_PROTOCOL_VERSION,
			facts:  []string{"with tls.min_version"},
			advice: []string{"set tls.min_version"},
		},
		{
			name: "no-common-cipher", only: tls.VersionTLS12,
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				u.CipherSuites = []string{"ECDHE-ECDSA-AES256-GCM-SHA384"}
				s.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
			},
			reason: adminv1.Reason_REASON_NO_COMMON_CIPHER,
			facts:  []string{"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"},
			advice: []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "tls.cipher_suites"},
		},
		{
			name: "no-common-group",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				u.Groups, s.CurvePreferences = []string{"P-521"}, []tls.CurveID{tls.X25519}
			},
			reason: adminv1.Reason_REASON_NO_COMMON_GROUP,
			facts:  []string{"P-521"},
			advice: []string{"set tls.groups", "X25519"},
		},
		{
			name:   "client-certificate-required",
			change: func(_ *tls.Config, u *adminv1.UpstreamTls) { u.Certificate = "" },
			reason: adminv1.Reason_REASON_CLIENT_CERTIFICATE_REQUIRED,
			facts:  []string{"requires a client certificate", "CN=e2e root"},
			advice: []string{"set tls.certificate"},
		},
		{
			name:   "client-certificate-rejected",
			change: func(_ *tls.Config, u *adminv1.UpstreamTls) { u.Certificate = "stranger" },
			reason: adminv1.Reason_REASON_CLIENT_CERTIFICATE_REJECTED,
			facts:  []string{"CN=stranger", "CN=e2e root"},
			advice: []string{"set tls.certificate"},
		},
		{
			name: "unrecognized-name",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) {
				s.Certificates = nil
				s.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
			},
			reason: adminv1.Reason_REASON_UNRECOGNIZED_NAME,
			facts:  []string{serverName, "SNI"},
		},
		{
			name: "alpn-mismatch",
			change: func(s *tls.Config, u *adminv1.UpstreamTls) {
				u.Alpn, s.NextProtos = []string{"h2"}, []string{"smtp"}
			},
			reason: adminv1.Reason_REASON_ALPN_MISMATCH,
			facts:  []string{"h2"},
			advice: []string{"tls.alpn"},
		},
		{
			name:   "bad-certificate",
			change: func(s *tls.Config, _ *adminv1.UpstreamTls) { s.Certificates = []tls.Certificate{bad} },
			reason: adminv1.Reason_REASON_BAD_CERTIFICATE,
		},
	}

	g := startGateway(t)
	g.apply(
		certificate("client", a.client), certificate("stranger", stranger),
		trustBundle("ca", a.ca), trustBundle("other", other),
		withCRLs(trustBundle("with-crl", a.ca), crl(t, a.ca, listed)),
		withCRLs(trustBundle("old-crl", a.ca), crlWith(t, a.ca, outdated)),
	)
	for _, c := range cases {
		for _, v := range bothVersions {
			if c.only != 0 && c.only != v.wire {
				continue
			}
			t.Run(c.name+"-"+v.name, func(t *testing.T) {
				server, settings := a.serverConfig(t), a.settings()
				server.MinVersion, server.MaxVersion = v.wire, v.wire
				settings.MinVersion, settings.MaxVersion = v.ours, v.ours
				c.change(server, settings)
				name := c.name + "-" + v.name
				web, raw := "http-"+name, "tcp-"+name
				g.apply(
					upstream(web, settings, serveReached(t, server)), listener(web, protocolHTTP, web),
					upstream(raw, settings, serveConns(t, server, echo)), listener(raw, protocolTCP, raw),
				)
				expectRefusal(t, g, web, raw, c.reason)
				for _, u := range []string{web, raw} {
					expectProbe(t, g, u, c.reason, c.facts, c.advice)
				}
				if v.wire == tls.VersionTLS13 || c.only != 0 {
					expectProbeCommand(t, g, raw, c.reason)
				}
			})
		}
	}
}

func versionBelow(v adminv1.TlsVersion) uint16 {
	if v == adminv1.TlsVersion_TLS_VERSION_1_3 {
		return tls.VersionTLS12
	}
	return tls.VersionTLS11
}

// serveReached answers each request with "reached", over HTTP/1.1 only and with
// exactly the given config.
func serveReached(t *testing.T, config *tls.Config) string {
	return serveConns(t, config, func(conn net.Conn) {
		var head strings.Builder
		for buf := make([]byte, 4096); !strings.Contains(head.String(), "\r\n\r\n"); {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			head.Write(buf[:n])
		}
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 %d OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nreached", http.StatusOK)
		_ = closeWrite(conn)
	})
}

// Failures before a handshake.
func TestEveryReasonOfAConnection(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	hold := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	for _, c := range []struct {
		name          string
		address       string
		reason        adminv1.Reason
		facts, advice []string
	}{
		{
			"refused", freeAddresses(t, 1)[0], adminv1.Reason_REASON_CONNECT_REFUSED,
			[]string{"nothing listens at"}, []string{"endpoints[0].address"},
		},
		{
			"dns", "nowhere.invalid:443", adminv1.Reason_REASON_DNS_FAILURE,
			[]string{"nowhere.invalid", "does not resolve"}, []string{"endpoints[0].address"},
		},
		{
			"silent", serveConns(t, nil, hold), adminv1.Reason_REASON_HANDSHAKE_TIMEOUT,
			[]string{"sent nothing", "timeouts.handshake"}, []string{"timeouts.handshake"},
		},
		{
			"http", serveConns(t, nil, func(conn net.Conn) {
				_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad \x1b[31mRequest\r\n\r\n")
				hold(conn)
			}), adminv1.Reason_REASON_NOT_TLS,
			[]string{"does not speak TLS", `HTTP/1.1 400 Bad \x1b[31mRequest`, "HTTP in plaintext"}, []string{"plaintext"},
		},
		{
			"smtp", serveConns(t, nil, func(conn net.Conn) {
				_, _ = io.WriteString(conn, "220 mail.example.com ESMTP\r\n")
				hold(conn)
			}), adminv1.Reason_REASON_NOT_TLS,
			[]string{"220 mail.example.com ESMTP"}, nil,
		},
		{
			"closes", serveConns(t, nil, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 1))
				_ = closeWrite(conn)
				hold(conn)
			}), adminv1.Reason_REASON_PEER_CLOSED,
			[]string{"closed the connection during the TLS handshake"}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := startGateway(t)
			one := func(name string) *adminv1.Upstream {
				u := upstream(name, a.settings(), c.address)
				u.Timeouts = &adminv1.UpstreamTimeouts{Handshake: durationpb.New(400 * time.Millisecond)}
				if c.reason != adminv1.Reason_REASON_HANDSHAKE_TIMEOUT {
					u.Timeouts.Handshake = nil
				}
				return u
			}
			g.apply(
				trustBundle("ca", a.ca), certificate("client", a.client),
				one("web"), listener("web", protocolHTTP, "web"), one("raw"), listener("raw", protocolTCP, "raw"),
			)
			expectRefusal(t, g, "web", "raw", c.reason)
			expectProbe(t, g, "web", c.reason, c.facts, c.advice)
			expectProbeCommand(t, g, "raw", c.reason)
		})
	}
}

// FROM_HOST takes the name from the request. A connection without a name is
// refused before a dial.
func TestFromHostRefusesAConnectionWithoutAName(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	settings := a.settings()
	settings.ServerName, settings.ServerNameSource = "", adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("raw", settings, serveConns(t, a.serverConfig(t), echo)), listener("raw", protocolTCP, "raw"),
	)
	if answer, _ := exchange(t, g.address("raw"), "reached"); answer != "" {
		t.Errorf("the client got %q", answer)
	}
	eventually(t, "the log says LOCAL_CONFIG", func() bool { return g.out.contains("LOCAL_CONFIG") })
	if e := g.upstream("raw").GetEndpoints()[0]; e.GetConnectionsMade() != 0 || e.GetHandshakesFull() != 0 {
		t.Errorf("the upstream was reached: %v", e)
	}
}
