// While servers and clients move from one CA to another, the status shows which
// CA verified each of them last. Once the old CA no longer verifies any of them,
// and not before, the status reports since when it is unneeded.

package e2e

import (
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestAnOldCAIsNoLongerNeeded(t *testing.T) {
	t.Parallel()
	before, after := newCA(t, "old root"), newCA(t, "new root")
	var presented atomic.Pointer[tls.Certificate]
	present := func(ca *pki.CA) {
		pair := keyPair(t, serverCert(t, ca, serverName))
		presented.Store(&pair)
	}
	present(before)
	backend := serveHTTPS(t, &tls.Config{SessionTicketsDisabled: true, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return presented.Load(), nil }}, respondsWith("hello"))

	both := trustBundle("corp", before)
	both.Source = &adminv1.TrustBundle_Pem{Pem: string(before.RootPEM()) + string(after.RootPEM())}
	none := int32(0)
	servers := upstream("backend", &adminv1.UpstreamTls{TrustBundles: []string{"corp"}, ServerName: serverName}, backend)
	servers.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
	servers.Pool = &adminv1.Pool{MaxIdle: &none} // so that each request makes its own handshake
	web := listener("web", protocolHTTP, "backend")
	web.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"corp"}}
	g := startGateway(t)
	g.apply(both, certificate("front", serverCert(t, after, "front.test")), servers, web)

	request := func(client *pki.CA) {
		t.Helper()
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: pool(after), ServerName: "front.test", Certificates: []tls.Certificate{keyPair(t, clientCert(t, client, "alice"))}}}
		if code, body, err := tryGet(t, &http.Client{Transport: transport}, "https://"+g.address("web")); err != nil || code != 200 || body != "hello" {
			t.Fatalf("%d %q, %v", code, body, err)
		}
	}
	// verdict returns the lines about CAs that have been used.
	verdict := func() string {
		t.Helper()
		r := g.cli("status", "--certificates", "--unused-for", "0s")
		var lines []string
		for line := range strings.Lines(r.stdout) {
			if strings.HasPrefix(line, "CA ") && strings.Contains(line, "needed") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		if r.code != 0 {
			t.Fatal(r)
		}
		return strings.Join(lines, "\n")
	}
	neededBy := func(subject string) (names []string) {
		t.Helper()
		resp, err := g.status.ListCertificates(longContext(t), &adminv1.ListCertificatesInUseRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range resp.GetCertificates() {
			if c.GetInfo().GetSubject() == subject {
				for _, u := range c.GetEvidence().GetNeededBy() {
					names = append(names, u.GetName()+" "+u.GetEndpoint())
				}
			}
		}
		return names
	}

	request(before)
	if got := verdict(); got != "" {
		t.Errorf("both use the old CA: %s", got)
	}
	present(after)
	request(before)
	if got, users := verdict(), neededBy("CN=old root"); got != "" || !slices.Equal(users, []string{"web "}) {
		t.Errorf("clients use the old CA: %q, needed by %q", got, users)
	}
	request(after)
	last := g.listener("web").GetClientPopulations()[0].GetVerifiedBy()
	if len(last) != 2 || last[0].GetSubject() != "CN=new root" || last[1].GetSubject() != "CN=old root" || last[1].GetVerifiedCount() != 2 {
		t.Fatalf("clients verified by %v", last)
	}
	since := "no handshake has used it since " + last[1].GetLastVerifiedTime().AsTime().Format("2006-01-02 15:04") + "."
	if got, want := verdict(), "CA CN=old root of trust bundle corp is no longer needed: "+since; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if r := g.cli("status", "--certificates"); r.code != 0 || strings.Contains(r.stdout, "needed") {
		t.Errorf("after a moment: %v", r)
	}
	if by := g.upstream("backend").GetEndpoints()[0].GetVerifiedBy(); len(by) != 2 || by[0].GetSubject() != "CN=new root" || by[1].GetVerifiedCount() != 1 {
		t.Errorf("the endpoint was verified by %v", by)
	}

	// The record outlives a change of the settings. For an upstream without traffic, the
	// status has no record.
	idle := upstream("idle", &adminv1.UpstreamTls{TrustBundles: []string{"corp"}, ServerName: serverName}, "127.0.0.1:9")
	web.Tls.MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3
	servers.GetTls().MinVersion = adminv1.TlsVersion_TLS_VERSION_1_3
	g.apply(servers, web, idle)
	if got, want := verdict(), "CA CN=old root of trust bundle corp may no longer be needed: "+since+" The gateway has not verified upstream idle 127.0.0.1:9 since it started."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if by := g.upstream("backend").GetEndpoints()[0].GetVerifiedBy(); len(by) != 2 {
		t.Errorf("after a change the endpoint was verified by %v", by)
	}

	g.remove(ref(adminv1.Kind_KIND_UPSTREAM, "idle"))
	both.Source = &adminv1.TrustBundle_Pem{Pem: string(after.RootPEM())}
	g.apply(both)
	request(after)
	if got := verdict(); got != "" {
		t.Errorf("without the old CA: %s", got)
	}

	// A restart loses the record.
	g.stop()
	g = g.restart()
	if by := g.listener("web").GetClientPopulations(); len(by) != 1 || len(by[0].GetVerifiedBy()) != 0 {
		t.Errorf("after a restart: %s", protojson.Format(g.listener("web")))
	}
}
