// The gateway never fails open. It rejects a write with key material that is
// empty, garbage, expired, missing or of the wrong kind. At a start with such
// files, the resources that use them are down with a reason. If a file becomes
// invalid later, the gateway continues with the old one.

package e2e

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestBadKeyMaterialIsRefusedWhenPut(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	expired, err := pki.NewRoot(pki.CAOptions{CommonName: "expired root", NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	dataDir := filepath.Join(shortDir(t), "data")
	g := startGatewayOn(t, dataDir)
	dir := filepath.Join(dataDir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string { return writeFile(t, filepath.Join(dir, name), data) }
	p12 := archive(t, a.client, "right")
	encrypted := encryptedKey(t, a.client, "right")
	ca, list, leaf, key := a.ca.RootPEM(), crl(t, a.ca), a.client.ChainPEM, a.client.KeyPEM
	garbage := []byte("\x00\x01garbage\xff")
	half := func(pem []byte) []byte { return pem[:len(pem)/2] }

	bundles := map[string]*adminv1.TrustBundle{"without a source": {}}
	for what, pem := range map[string][]byte{
		"empty": nil, "garbage": garbage, "truncated": half(ca), "a key": key, "a leaf": leaf, "a revocation list": list, "expired": expired.RootPEM(),
		"a valid block, then a truncated one": append(slices.Clone(ca), half(ca)...), "a valid block, then a key": append(slices.Clone(ca), key...),
	} {
		bundles["CAs "+what] = &adminv1.TrustBundle{Source: &adminv1.TrustBundle_Pem{Pem: strings.ToValidUTF8(string(pem), "?")}}
		bundles["a file of CAs "+what] = &adminv1.TrustBundle{Source: &adminv1.TrustBundle_File{File: file("ca "+what, pem)}}
	}
	bundles["a file that is missing"] = &adminv1.TrustBundle{Source: &adminv1.TrustBundle_File{File: filepath.Join(dir, "nowhere")}}
	bundles["a directory"] = &adminv1.TrustBundle{Source: &adminv1.TrustBundle_File{File: dir}}
	for what, pem := range map[string][]byte{
		"empty": nil, "garbage": garbage, "truncated": half(list), "a CA": ca, "a key": key,
		"a valid block, then a truncated one": append(slices.Clone(list), half(list)...),
	} {
		bundles["a list "+what] = withCRLs(trustBundle("", a.ca), []byte(strings.ToValidUTF8(string(pem), "?")))
		bundles["a file of lists "+what] = withCRLFile(trustBundle("", a.ca), file("crl "+what, pem))
	}
	bundles["a file of lists that is missing"] = withCRLFile(trustBundle("", a.ca), filepath.Join(dir, "nowhere"))
	bundles["a list without a source"] = &adminv1.TrustBundle{Source: trustBundle("", a.ca).Source, Crls: []*adminv1.Crl{{}}}
	for what, b := range bundles {
		b.Name = "bad"
		_, err := g.admin.PutTrustBundle(longContext(t), &adminv1.PutTrustBundleRequest{TrustBundle: b})
		expectInvalid(t, "a trust bundle of "+what, err)
	}

	pem := func(chain, key []byte, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
			CertificateChain: strings.ToValidUTF8(string(chain), "?"), PrivateKey: strings.ToValidUTF8(string(key), "?"), Passphrase: passphrase,
		}}}
	}
	files := func(chain, key, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key, PassphrasePath: passphrase}}}
	}
	pkcs12 := func(data []byte, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: data, Passphrase: passphrase}}}
	}
	goodChain, goodKey := file("chain", leaf), file("key", key)
	for what, c := range map[string]*adminv1.Certificate{
		"without a source":                         {},
		"an empty chain":                           pem(nil, key, ""),
		"a chain of garbage":                       pem(garbage, key, ""),
		"a truncated chain":                        pem(half(leaf), key, ""),
		"a revocation list in place of a chain":    pem(list, key, ""),
		"no key":                                   pem(leaf, nil, ""),
		"a key of garbage":                         pem(leaf, garbage, ""),
		"a truncated key":                          pem(leaf, half(key), ""),
		"a certificate in place of a key":          pem(leaf, leaf, ""),
		"the key of another certificate":           pem(leaf, other.client.KeyPEM, ""),
		"an encrypted key without a passphrase":    pem(leaf, encrypted, ""),
		"an encrypted key with a wrong passphrase": pem(leaf, encrypted, "wrong"),
		"a file that is missing":                   files(filepath.Join(dir, "nowhere"), goodKey, ""),
		"a key file that is missing":               files(goodChain, filepath.Join(dir, "nowhere"), ""),
		"a key file that is empty":                 files(goodChain, file("empty", nil), ""),
		"a passphrase file that is missing":        files(goodChain, file("encrypted", encrypted), filepath.Join(dir, "nowhere")),
		"a passphrase file that is wrong":          files(goodChain, file("encrypted", encrypted), file("wrong", []byte("wrong\n"))),
		"the key file of another certificate":      files(goodChain, file("other", other.client.KeyPEM), ""),
		"an empty archive":                         pkcs12(nil, "right"),
		"an archive of garbage":                    pkcs12(garbage, "right"),
		"a truncated archive":                      pkcs12(half(p12), "right"),
		"an archive with a wrong password":         pkcs12(p12, "wrong"),
		"an archive without its password":          pkcs12(p12, ""),
		"an archive file with a wrong password":    files(file("p12", p12), "", file("wrong", []byte("wrong\n"))),
		"PEM in place of an archive":               pkcs12(leaf, ""),
	} {
		c.Name = "bad"
		_, err := g.admin.PutCertificate(longContext(t), &adminv1.PutCertificateRequest{Certificate: c})
		expectInvalid(t, "a certificate of "+what, err)
	}
	if counts := g.getStatus().GetCounts(); counts.GetTrustBundles() != 0 || counts.GetCertificates() != 0 {
		t.Errorf("a rejected resource was stored: %v", counts)
	}
}

func expectInvalid(t *testing.T, name string, err error) {
	t.Helper()
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("%s: %v, want InvalidArgument", name, err)
	}
}

func withCRLFile(bundle *adminv1.TrustBundle, path string) *adminv1.TrustBundle {
	bundle.Crls = append(bundle.Crls, &adminv1.Crl{Source: &adminv1.Crl_File{File: path}})
	return bundle
}

// A fileBridge is a set of resources with all key material in files: an
// upstream with mutual TLS behind one listener, and a second listener that
// requires client certificates.
type fileBridge struct {
	name, dir string
	a         *authority
}

// newFileBridge applies one bridge. All bridges share the servers.
func newFileBridge(t *testing.T, g *gateway, a *authority, name, web, raw string) *fileBridge {
	t.Helper()
	b := &fileBridge{name: name, dir: filepath.Join(g.dir, "files", name), a: a}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{
		"ca": a.ca.RootPEM(), "crl": crl(t, a.ca), "client.pem": a.client.ChainPEM, "client.key": a.client.KeyPEM,
		"front.p12": archive(t, a.server, "right"), "passphrase": []byte("right\n"),
	} {
		b.write(t, file, data)
	}
	paths := func(chain, key, passphrase string) *adminv1.Certificate_Files {
		for _, p := range []*string{&chain, &key, &passphrase} {
			if *p != "" {
				*p = filepath.Join(b.dir, *p)
			}
		}
		return &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key, PassphrasePath: passphrase}}
	}
	front := listener("front-"+name, protocolTCP, "plain-"+name)
	front.Tls = &adminv1.ServerTls{
		Certificates: []string{"front-" + name}, ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, ClientTrustBundles: []string{"ca-" + name},
	}
	g.apply(
		withCRLFile(&adminv1.TrustBundle{Name: "ca-" + name, Source: &adminv1.TrustBundle_File{File: filepath.Join(b.dir, "ca")}}, filepath.Join(b.dir, "crl")),
		&adminv1.Certificate{Name: "client-" + name, Source: paths("client.pem", "client.key", "")},
		&adminv1.Certificate{Name: "front-" + name, Source: paths("front.p12", "", "passphrase")},
		upstream("web-"+name, &adminv1.UpstreamTls{Certificate: "client-" + name, TrustBundles: []string{"ca-" + name}, ServerName: serverName}, web),
		listener("web-"+name, protocolHTTP, "web-"+name),
		plainUpstream("plain-"+name, raw), front,
	)
	return b
}

func (b *fileBridge) write(t *testing.T, file string, data []byte) {
	t.Helper()
	path := filepath.Join(b.dir, file)
	if data == nil { // the file is missing
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	writeFile(t, path, data)
}

// upstreamWorks reports whether a request reaches the upstream.
func (b *fileBridge) upstreamWorks(t *testing.T, g *gateway) bool {
	t.Helper()
	code, body := get(t, "http://"+g.address("web-"+b.name)+"/")
	return code == 200 && body == "reached"
}

// frontWorks reports whether the listener echoes the bytes of a client with a
// certificate.
func (b *fileBridge) frontWorks(t *testing.T, g *gateway) bool {
	t.Helper()
	l := g.listener("front-" + b.name)
	if l.GetState() != adminv1.ListenerState_LISTENER_STATE_UP {
		if l.GetReason() == "" {
			t.Errorf("%s is down without a reason", l.GetName())
		}
		return false
	}
	conn := tls.Client(dial(t, l.GetBoundAddress()), &tls.Config{
		RootCAs: pool(b.a.ca), ServerName: serverName, Certificates: []tls.Certificate{keyPair(t, b.a.client)},
	})
	defer conn.Close()
	return pingPong(conn, "hello") == nil
}

// A fileFault is a file that becomes invalid, and the sides that depend on it.
type fileFault struct {
	name, file      string
	data            []byte // the new content; nil: the file is removed
	kind            adminv1.Kind
	resource        string
	upstream, front bool // the sides that need the file
}

func fileFaults(t *testing.T, a *authority) []fileFault {
	t.Helper()
	other := newAuthority(t)
	expired, err := pki.NewRoot(pki.CAOptions{CommonName: "expired root", NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	garbage := []byte("garbage")
	var all []fileFault
	add := func(name, file string, data []byte) {
		f := fileFault{name: name, file: file, data: data}
		switch file {
		case "ca", "crl":
			f.kind, f.resource, f.upstream, f.front = adminv1.Kind_KIND_TRUST_BUNDLE, "ca-", true, true
		case "client.pem", "client.key":
			f.kind, f.resource, f.upstream = adminv1.Kind_KIND_CERTIFICATE, "client-", true
		default:
			f.kind, f.resource, f.front = adminv1.Kind_KIND_CERTIFICATE, "front-", true
		}
		all = append(all, f)
	}
	for _, file := range []string{"ca", "crl", "client.pem", "client.key", "front.p12"} {
		name := strings.ReplaceAll(file, ".", "-")
		add(name+"-missing", file, nil)
		add(name+"-empty", file, []byte{})
		add(name+"-garbage", file, garbage)
	}
	add("ca-leaf", "ca", a.server.ChainPEM)
	add("ca-key", "ca", a.client.KeyPEM)
	add("ca-expired", "ca", expired.RootPEM())
	add("ca-half", "ca", a.ca.RootPEM()[:300])
	add("crl-ca", "crl", a.ca.RootPEM())
	add("crl-half", "crl", crl(t, a.ca, a.client)[:200])
	add("client-pem-other", "client.pem", other.client.ChainPEM)
	add("client-key-other", "client.key", other.client.KeyPEM)
	add("passphrase-missing", "passphrase", nil)
	add("passphrase-wrong", "passphrase", []byte("wrong\n"))
	return all
}

func TestResourcesWithBadFilesAreDownAfterTheStart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	faults := fileFaults(t, a)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("reached"))
	raw := serveConns(t, nil, echo)
	g := startGateway(t)
	var bridges []*fileBridge
	for _, f := range faults {
		bridges = append(bridges, newFileBridge(t, g, a, f.name, web, raw))
	}
	if b := bridges[0]; !b.upstreamWorks(t, g) || !b.frontWorks(t, g) {
		t.Fatal("the bridge does not work before any fault")
	}
	g.stop()
	for i, f := range faults {
		bridges[i].write(t, f.file, f.data)
	}
	g = g.restart()
	problems := g.getStatus().GetProblems()
	for i, f := range faults {
		if got := bridges[i].upstreamWorks(t, g); got == f.upstream {
			t.Errorf("%s: the upstream works: %v", f.name, got)
		}
		if got := bridges[i].frontWorks(t, g); got == f.front {
			t.Errorf("%s: the listener works: %v", f.name, got)
		}
		if !slices.ContainsFunc(problems, func(p *adminv1.Problem) bool {
			return p.GetKind() == f.kind && p.GetName() == f.resource+f.name && p.GetReason() != ""
		}) {
			t.Errorf("%s: the status has no problem", f.name)
		}
		if up := g.upstream("web-" + f.name); f.upstream && up.GetReason() == adminv1.Reason_REASON_UNSPECIFIED {
			t.Errorf("%s: the upstream is down without a reason: %v", f.name, up)
		}
	}
}

func TestAFileThatBecomesBadChangesNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	faults := fileFaults(t, a)
	web := serveHTTPS(t, a.serverConfig(t), respondsWith("reached"))
	raw := serveConns(t, nil, echo)
	g := startGateway(t)
	var bridges []*fileBridge
	for _, f := range faults {
		bridges = append(bridges, newFileBridge(t, g, a, f.name, web, raw))
	}
	revision := g.getStatus().GetRevision()
	events := g.watchEvents()
	for i, f := range faults {
		bridges[i].write(t, f.file, f.data)
	}
	refused := map[string]int{}
	for len(refused) < len(faults) {
		e := events.await(adminv1.EventType_EVENT_TYPE_FILE_REFUSED)
		if e.GetMessage() == "" || e.GetReason() != adminv1.Reason_REASON_LOCAL_CONFIG {
			t.Errorf("the event has no reason: %v", e)
		}
		refused[fmt.Sprint(e.GetKind(), e.GetName())]++
	}
	for i, f := range faults {
		if refused[fmt.Sprint(f.kind, f.resource+f.name)] == 0 {
			t.Errorf("%s: no event names %s%s", f.name, f.resource, f.name)
		}
		if !bridges[i].upstreamWorks(t, g) || !bridges[i].frontWorks(t, g) {
			t.Errorf("%s: the live material stopped working", f.name)
		}
	}
	if now := g.getStatus(); now.GetRevision() != revision || len(now.GetProblems()) != 0 {
		t.Errorf("revision %d has become %d, problems %v", revision, now.GetRevision(), now.GetProblems())
	}
	// An outdated revocation list does become live. Without a current list, the
	// gateway rejects all peers.
	last := bridges[len(bridges)-1]
	last.write(t, "crl", crlWith(t, a.ca, outdated))
	events.await(adminv1.EventType_EVENT_TYPE_FILE_LOADED)
	if last.upstreamWorks(t, g) || last.frontWorks(t, g) {
		t.Error("a connection was accepted with an outdated revocation list")
	}
	expectReason(t, g, "web-"+last.name, adminv1.Reason_REASON_CRL_EXPIRED)
}
