// Revocation fails closed: a list with another signer or issuer does not count,
// and each certificate below the anchor needs a list. A list of 100,000 entries
// works like a short one.

package e2e

import (
	"crypto/tls"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestRevocationFailsClosed(t *testing.T) {
	t.Parallel()
	root := newCA(t, "e2e root")
	impostor := newCA(t, "e2e root") // the same name with another key
	stranger := newCA(t, "another root")
	between := intermediate(t, root)
	a := &authority{ca: root, server: serverCert(t, between, serverName), client: clientCert(t, between, "client")}
	issuer := &pki.Issued{Leaf: between.Certificate()}

	const good, revoked, unknown = adminv1.Reason_REASON_UNSPECIFIED, adminv1.Reason_REASON_REVOKED, adminv1.Reason_REASON_CRL_EXPIRED
	of := func(lists ...[]byte) [][]byte { return lists }
	rootList, betweenList := crl(t, root), crl(t, between)
	cases := []struct {
		name  string
		lists [][]byte
		want  adminv1.Reason
	}{
		{"none", nil, good},
		{"both", of(rootList, betweenList), good},
		{"both-in-one", of(append(append([]byte{}, betweenList...), rootList...)), good},
		{"root-only", of(rootList), unknown},
		{"intermediate-only", of(betweenList), unknown},
		{"impostor", of(crl(t, impostor), betweenList), unknown},
		{"stranger", of(crl(t, stranger), betweenList), unknown},
		{"root-outdated", of(crlWith(t, root, outdated), betweenList), unknown},
		{"outdated-and-new", of(crlWith(t, root, outdated), betweenList, rootList), good},
		{"leaf-revoked", of(rootList, crl(t, between, a.server, a.client)), revoked},
		{"intermediate-revoked", of(crl(t, root, issuer), betweenList), revoked},
		{"revoked-by-impostor", of(rootList, betweenList, crl(t, impostor, issuer)), good},
	}
	config := &tls.Config{Certificates: []tls.Certificate{keyPair(t, a.server)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(root)}
	raw := serveConns(t, config, echo)
	plain := serveConns(t, nil, echo)
	g := startGateway(t)
	g.apply(certificate("client", a.client), certificate("front", a.server), plainUpstream("plain", plain))
	for _, c := range cases {
		front := listener("front-"+c.name, protocolTCP, "plain")
		front.Tls = &adminv1.ServerTls{Certificates: []string{"front"}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_OPTIONAL, ClientTrustBundles: []string{c.name}}
		g.apply(
			withCRLs(trustBundle(c.name, root), c.lists...),
			upstream(c.name, &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{c.name}, ServerName: serverName}, raw),
			listener(c.name, protocolTCP, c.name), front,
		)
		answer, err := exchange(t, g.address(c.name), "hello")
		if c.want == good && (answer != "hello" || err != nil) || c.want != good && answer != "" {
			t.Errorf("%s: the upstream answers %q, %v", c.name, answer, err)
		}
		if c.want != good {
			expectReason(t, g, c.name, c.want)
		}
		expectProbe(t, g, c.name, c.want, nil, nil)
		for _, v := range bothVersions {
			for who, certificates := range map[string][]tls.Certificate{"the client": {keyPair(t, a.client)}, "a client without a certificate": nil} {
				conn := tls.Client(dial(t, g.address("front-"+c.name)), &tls.Config{
					RootCAs: pool(root), ServerName: serverName, Certificates: certificates, MinVersion: v.wire, MaxVersion: v.wire,
				})
				err := pingPong(conn, "hello")
				if passes := c.want == good || certificates == nil; (err == nil) != passes {
					t.Errorf("%s: %s with TLS %s: %v", c.name, who, v.name, err)
				}
				_ = conn.Close()
			}
		}
		if c.want != good {
			eventually(t, "the log says why the client of front-"+c.name+" is refused", func() bool {
				for line := range strings.Lines(g.out.String()) {
					if strings.Contains(line, `"front-`+c.name+`"`) && strings.Contains(line, `"`+word(c.want)+`"`) {
						return true
					}
				}
				return false
			})
		}
	}
}

func TestALongRevocationList(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	o := pki.CRLOptions{}
	for i := range int64(100_000) {
		o.Revoked = append(o.Revoked, new(big.Int).Lsh(big.NewInt(i+1), 100)) // the length of real serials
	}
	long := crlWith(t, a.ca, o)
	withServer := crlWith(t, a.ca, o, a.server)
	raw := serveConns(t, a.serverConfig(t), echo)
	g := startGateway(t)
	dir := filepath.Join(g.dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, filepath.Join(dir, "crl"), long)
	g.apply(
		certificate("client", a.client), withCRLFile(trustBundle("ca", a.ca), path), upstream("raw", a.settings(), raw), listener("raw", protocolTCP, "raw"),
	)
	resp, err := g.admin.GetTrustBundle(longContext(t), &adminv1.GetTrustBundleRequest{Name: "ca"})
	if err != nil || len(resp.GetInfo().GetCrls()) != 1 || resp.GetInfo().GetCrls()[0].GetRevoked() != 100_000 {
		t.Errorf("the bundle is %v, %v", resp.GetInfo(), err)
	}
	for range 20 {
		if answer, err := exchange(t, g.address("raw"), "hello"); answer != "hello" || err != nil {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	events := g.watchEvents()
	writeFile(t, path, withServer)
	events.await(adminv1.EventType_EVENT_TYPE_FILE_LOADED)
	if answer, _ := exchange(t, g.address("raw"), "hello"); answer != "" {
		t.Errorf("a revoked upstream answered %q", answer)
	}
	expectReason(t, g, "raw", adminv1.Reason_REASON_REVOKED)
	if peak := peakMemory(t, g.cmd.Process.Pid); peak > 1<<30 {
		t.Errorf("the gateway needed %d MiB", peak>>20)
	}
}
