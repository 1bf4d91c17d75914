package probe_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/probe"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestTheResultOfASuccessfulProbe(t *testing.T) {
	ca := certstest.NewCA(t)
	between := ca.Intermediate(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			server, o := mutual(t, ca)
			server.Certificates[0] = certstest.TLS(t, between.Server(t, "upstream.test", "spiffe://corp/pay"))
			server.MaxVersion = version
			server.NextProtos, o.NextProtos = []string{"h2"}, []string{"h2", "http/1.1"}
			addr := serveTLS(t, server)
			r := run(t, addr, o)
			want(t, r, "", []string{tls.VersionName(version), "CN=upstream.test"}, nil)
			if r.Suggestion != (probe.Suggestion{}) {
				t.Errorf("a suggestion: %+v", r.Suggestion)
			}
			if r.Version != version || r.CipherSuite == 0 || r.Group == 0 || r.ALPN != "h2" {
				t.Errorf("negotiated %x %x %v %q", r.Version, r.CipherSuite, r.Group, r.ALPN)
			}
			if len(r.Chain) != 2 || r.Chain[0].SANs[1] != "URI:spiffe://corp/pay" || !strings.HasPrefix(r.Chain[1].Subject, "CN=test intermediate of") {
				t.Errorf("chain %+v", r.Chain)
			}
			if !r.ResumptionOffered || !r.ClientRequested || !r.ClientSent {
				t.Errorf("resumption %v, requested %v, sent %v", r.ResumptionOffered, r.ClientRequested, r.ClientSent)
			}
			if len(r.AcceptableCAs) != 1 || !strings.HasPrefix(r.AcceptableCAs[0], "CN=test root of") {
				t.Errorf("acceptable CAs %q", r.AcceptableCAs)
			}
			if r.RemoteAddress != addr || r.ServerName != "upstream.test" || len(r.VerifyNames) != 1 || r.VerifyNames[0] != "upstream.test" {
				t.Errorf("address %s, names %q %q", r.RemoteAddress, r.ServerName, r.VerifyNames)
			}
			if r.Connect <= 0 || r.Handshake <= 0 || r.DNS != 0 || len(r.Attempts) != 0 {
				t.Errorf("timings %v %v %v, attempts %v", r.DNS, r.Connect, r.Handshake, r.Attempts)
			}
		})
	}
}

func TestDisabledVerificationIsReported(t *testing.T) {
	ca, other := certstest.NewCA(t), certstest.NewCA(t)
	server, o := mutual(t, ca)
	addr := serveTLS(t, server)

	o.Verification = certs.VerifyInsecureSkip
	r := run(t, addr, o)
	want(t, r, "", []string{"not verified", "the handshake succeeds"}, []string{"VERIFICATION_FULL"})
	if len(r.Attempts) != 1 || r.Attempts[0] != (probe.Attempt{Change: "tls.verification: VERIFICATION_FULL"}) {
		t.Errorf("attempts %v", r.Attempts)
	}

	o.Trust = []*certs.TrustBundle{other.Trust(t)}
	r = run(t, addr, o)
	want(t, r, "", []string{"not verified", "would reject it: ", "CN=test root of"}, []string{"tls.trust_bundles", "VERIFICATION_FULL"})
	if len(r.Attempts) != 1 || r.Attempts[0].Reason != certs.ReasonUnknownCA {
		t.Errorf("attempts %v", r.Attempts)
	}

	o.Verification = certs.VerifyReportOnly
	o.Report = func(*certs.VerifyError) { t.Error("a probe called the Report of traffic") }
	want(t, run(t, addr, o), "", []string{"REPORT_ONLY accepted", "CN=test root of"}, []string{"tls.trust_bundles"})
}

// Some servers complete any handshake, and reject requests later.
func TestAMissingClientCertificateIsReported(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	server.ClientAuth = tls.RequestClientCert
	addr := serveTLS(t, server)
	want(t, run(t, addr, o), "", []string{"completed the handshake"}, nil)
	o.Certificate = certstest.Certificate(t, rootNamed(t, "another root").Client(t, "stranger"))
	want(t, run(t, addr, o), "", []string{"completed the handshake", "requested a client certificate", "CN=test root of", "none of them issued ours"}, []string{"tls.certificate", "CN=test root of"})
	o.Certificate = nil
	want(t, run(t, addr, o), "", []string{"completed the handshake", "requested a client certificate", "we sent none"}, []string{"tls.certificate", "CN=test root of"})
}

func TestAHostNameIsResolved(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	addr := serveTLS(t, server)
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, "localhost:"+port, o)
	want(t, r, "", []string{"localhost:" + port + " (" + addr + ")"}, nil)
	if r.DNS <= 0 || r.Connect <= 0 || r.RemoteAddress != addr {
		t.Errorf("dns %v, connect %v, address %s", r.DNS, r.Connect, r.RemoteAddress)
	}
}

func TestAMatchingPinIsSuggested(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	o.Pins = [][32]byte{{1}}
	addr := serveTLS(t, server)
	s := run(t, addr, o).Suggestion
	var pins []string
	if err := json.Unmarshal([]byte(s.Value), &pins); err != nil || s.Field != "tls.spki_pins" || len(pins) != 2 {
		t.Fatalf("suggestion %+v", s)
	}
	o.Pins = nil
	for _, p := range pins {
		pin, err := base64.StdEncoding.DecodeString(p)
		if err != nil || len(pin) != 32 {
			t.Fatalf("suggestion %+v", s)
		}
		o.Pins = append(o.Pins, [32]byte(pin))
	}
	if o.Pins[0] != ([32]byte{1}) {
		t.Errorf("the suggestion drops the pin that is set: %s", s.Value)
	}
	want(t, run(t, addr, o), "", nil, nil)
}

func TestTheNameIsTakenFromTheHostOrNotSent(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	right := server.Certificates[0]
	wrong := certstest.TLS(t, ca.Server(t, "stopgap.test"))
	server.Certificates, server.GetCertificate = nil, func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName == "upstream.test" {
			return &right, nil
		}
		return &wrong, nil
	}
	addr := serveTLS(t, server)

	// Without SNI the server presents a placeholder certificate; with it, the
	// right one.
	o.NoServerName = true
	r := run(t, addr, o)
	want(t, r, certs.ReasonNameMismatch, []string{"stopgap.test", "we verify upstream.test", "the handshake succeeds"},
		[]string{"tls.server_name_source to SERVER_NAME_SOURCE_FIXED", `tls.server_name to "upstream.test"`})
	if r.ServerName != "" {
		t.Errorf("sent %q", r.ServerName)
	}

	o.NoServerName, o.FromHost, o.ServerName = false, true, ""
	r = run(t, addr, o, func(p *probe.Target) { p.Host = "upstream.test" })
	want(t, r, "", nil, nil)
	if r.ServerName != "upstream.test" || len(r.VerifyNames) != 1 || r.VerifyNames[0] != "upstream.test" {
		t.Errorf("sent %q, verified %q", r.ServerName, r.VerifyNames)
	}
	want(t, run(t, addr, o, func(p *probe.Target) { p.Host = "other.test" }), certs.ReasonNameMismatch, []string{"we verify other.test"}, nil)
	want(t, run(t, addr, o), certs.ReasonLocalConfig, nil, nil)
}

// A middlebox that reads only the first packet of a ClientHello drops those
// with a post-quantum key share, which take two.
func TestAFailureOnPostQuantumGroupsIsDetected(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	addr := serve(t, listen(t), func(c net.Conn) {
		choosy := server.Clone()
		choosy.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, g := range h.SupportedCurves {
				if g == tls.X25519MLKEM768 {
					c.Close()
				}
			}
			return nil, nil
		}
		if tc := tls.Server(c, choosy); tc.Handshake() == nil {
			tc.Read(make([]byte, 1))
			tc.Close()
		}
	})
	r := run(t, addr, o)
	want(t, r, certs.ReasonPeerClosed, []string{"closed the connection", "with tls.groups: X25519, P-256, P-384, P-521 the handshake succeeds"},
		[]string{`set tls.groups to ["X25519", "P-256", "P-384", "P-521"]`, "post-quantum"})
	if len(r.Attempts) != 1 || r.Attempts[0].Reason != "" {
		t.Errorf("attempts %v", r.Attempts)
	}
}

func TestAFailureOnTLS13IsDetected(t *testing.T) {
	ca := certstest.NewCA(t)
	server, o := mutual(t, ca)
	addr := serve(t, listen(t), func(c net.Conn) {
		choosy := server.Clone()
		choosy.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, v := range h.SupportedVersions {
				if v == tls.VersionTLS13 {
					c.Close()
				}
			}
			return nil, nil
		}
		if tc := tls.Server(c, choosy); tc.Handshake() == nil {
			tc.Read(make([]byte, 1))
			tc.Close()
		}
	})
	r := run(t, addr, o)
	want(t, r, certs.ReasonPeerClosed, []string{"the handshake succeeds"}, []string{"set tls.max_version to TLS_VERSION_1_2"})
	if n := len(r.Attempts); n == 0 || r.Attempts[n-1] != (probe.Attempt{Change: "tls.max_version: TLS_VERSION_1_2"}) {
		t.Errorf("attempts %v", r.Attempts)
	}
}
