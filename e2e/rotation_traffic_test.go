// Certificates, CAs and revocation lists are rotated under running streams,
// WebSockets and HTTP, by Put and by files that Kubernetes swaps. No connection
// is dropped, and the next handshake uses the new material. Connections with
// the old material are counted until DrainConnections ends them.

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// material is all key material that a test rotates.
type material struct {
	client  *pki.Issued
	ca, crl []byte
}

// A rotator makes material live under the names "client" and "ca" before it
// returns.
type rotator func(m material)

func rotateByPut(g *gateway) rotator {
	return func(m material) {
		g.t.Helper()
		bundle := &adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_Pem{Pem: string(m.ca)}}
		g.apply(certificate("client", m.client), withCRLs(bundle, m.crl))
	}
}

// rotateByFiles swaps files like a kubelet. The volume's files are symlinks
// into a directory, which is itself a symlink; only that symlink is replaced.
func rotateByFiles(g *gateway) rotator {
	t := g.t
	volume := filepath.Join(g.dir, "volume")
	if err := os.Mkdir(volume, 0o700); err != nil {
		t.Fatal(err)
	}
	var events *eventStream
	var before material
	n := 0
	return func(m material) {
		t.Helper()
		n++
		version := fmt.Sprintf("..2026_%d", n)
		if err := os.Mkdir(filepath.Join(volume, version), 0o700); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"tls.crt": m.client.ChainPEM, "tls.key": m.client.KeyPEM, "ca.crt": m.ca, "ca.crl": m.crl}
		for name, data := range files {
			writeFile(t, filepath.Join(volume, version, name), data)
		}
		link := func(target, path string) {
			if err := os.Symlink(target, path+".new"); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		}
		link(version, filepath.Join(volume, "..data"))
		if events == nil {
			for name := range files {
				link(filepath.Join("..data", name), filepath.Join(volume, name))
			}
			bundle := &adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: filepath.Join(volume, "ca.crt")}}
			g.apply(
				&adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{
					CertificatePath: filepath.Join(volume, "tls.crt"), PrivateKeyPath: filepath.Join(volume, "tls.key"),
				}}},
				withCRLFile(bundle, filepath.Join(volume, "ca.crl")),
			)
			events, before = g.watchEvents(), m
			return
		}
		// Like a kubelet, remove the old directory last.
		if err := os.RemoveAll(filepath.Join(volume, fmt.Sprintf("..2026_%d", n-1))); err != nil {
			t.Fatal(err)
		}
		waiting := map[string]bool{}
		if m.client != before.client {
			waiting["client"] = true
		}
		if !bytes.Equal(m.ca, before.ca) || !bytes.Equal(m.crl, before.crl) {
			waiting["ca"] = true
		}
		before = m
		for len(waiting) > 0 {
			e := events.await(adminv1.EventType_EVENT_TYPE_FILE_LOADED)
			delete(waiting, e.GetName())
			if e.GetRevision() == 0 || e.GetRevision() > g.getStatus().GetRevision() {
				t.Errorf("the files of %s are live in revision %d", e.GetName(), e.GetRevision())
			}
		}
	}
}

func TestRotationByPutUnderTraffic(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	testRotation(t, g, rotateByPut(g))
}

func TestRotationByFilesUnderTraffic(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	testRotation(t, g, rotateByFiles(g))
}

func testRotation(t *testing.T, g *gateway, rotate rotator) {
	cas := []*pki.CA{newCA(t, "first root"), newCA(t, "second root")}
	both := x509.NewCertPool()
	var bundle []byte
	var servers []tls.Certificate
	for _, ca := range cas {
		both.AppendCertsFromPEM(ca.RootPEM())
		bundle = append(bundle, ca.RootPEM()...)
		servers = append(servers, keyPair(t, serverCert(t, ca, serverName)))
	}
	var mu sync.Mutex
	present := servers[0]
	config := &tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: both,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			mu.Lock()
			defer mu.Unlock()
			return &present, nil
		},
	}
	who := serveIdentity(t, config)
	raw := serveConns(t, config, echo)
	web := serveHTTPS(t, config, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chat" {
			echoWebSocket(w, r)
			return
		}
		_, _ = fmt.Fprint(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	client := func(n int, ca *pki.CA) *pki.Issued { return clientCert(t, ca, fmt.Sprintf("client %d", n)) }
	// Both CAs have a list, because each certificate needs one from its issuer.
	lists := func(a, b []byte) []byte { return append(append([]byte{}, a...), b...) }
	all := lists(crl(t, cas[0]), crl(t, cas[1]))

	first := client(0, cas[0])
	rotate(material{first, cas[0].RootPEM(), all})
	settings := &adminv1.UpstreamTls{Certificate: "client", TrustBundles: []string{"ca"}, ServerName: serverName}
	g.apply(
		upstream("who", settings, who), listener("who", protocolTCP, "who"),
		upstream("raw", settings, raw), listener("raw", protocolTCP, "raw"),
		upstream("web", settings, web), listener("web", protocolHTTP, "web"),
	)

	// This traffic runs throughout the test.
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	var traffic sync.WaitGroup
	const streams = 3
	for i := range streams {
		conn := dial(t, g.address("raw"))
		if err := pingPong(conn, "hello\n"); err != nil {
			t.Fatal(err)
		}
		traffic.Go(func() {
			for j := 0; !stopped(); j++ {
				if err := pingPong(conn, fmt.Sprintf("stream %d line %d\n", i, j)); err != nil {
					t.Errorf("stream %d line %d: %v", i, j, err)
					return
				}
			}
		})
	}
	ws, _, err := websocket.Dial(longContext(t), "ws://"+g.address("web")+"/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	if err := webSocketPingPong(t, ws, "hello"); err != nil {
		t.Fatal(err)
	}
	traffic.Go(func() {
		for i := 0; !stopped(); i++ {
			if err := webSocketPingPong(t, ws, fmt.Sprint("message ", i)); err != nil {
				t.Errorf("WebSocket, message %d: %v", i, err)
				return
			}
		}
	})
	kept := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(kept.CloseIdleConnections)
	base := "http://" + g.address("web") + "/"
	for range 2 {
		traffic.Go(func() {
			for !stopped() {
				if code, body, err := tryGet(t, kept, base); err != nil || code != 200 {
					t.Errorf("HTTP: %d %q %v", code, body, err)
					return
				}
			}
		})
	}

	// Rotate the identity, then the trust, the server and the client's issuer,
	// then a list that revokes an unused certificate.
	stray := serverCert(t, cas[1], "stray.example.com")
	last := client(4, cas[1])
	for i, step := range []struct {
		material
		server *tls.Certificate
	}{
		{material{client(1, cas[0]), cas[0].RootPEM(), all}, nil},
		{material{client(2, cas[0]), bundle, all}, &servers[1]},
		{material{client(3, cas[1]), cas[1].RootPEM(), all}, nil},
		{material{last, cas[1].RootPEM(), lists(crl(t, cas[0]), crl(t, cas[1], stray))}, nil},
	} {
		rotate(step.material)
		if step.server != nil {
			mu.Lock()
			present = *step.server
			mu.Unlock()
		}
		name := fmt.Sprintf("client %d", i+1)
		if got := seenTCP(t, g, "who"); got != name+" "+serverName+" full" {
			t.Errorf("step %d: the next stream is seen as %q", i, got)
		}
		if code, body := get(t, base); code != 200 || body != name {
			t.Errorf("step %d: the next request is %d, seen as %q", i, code, body)
		}
	}
	fp := fingerprint(first)
	if got := g.open("raw"); got[fp] != streams || len(got) != 1 {
		t.Errorf("the streams are counted as %v, want %d of %s", got, streams, fp)
	}
	if got := g.open("web"); got[fp] == 0 || got[fingerprint(last)] == 0 {
		t.Errorf("the WebSocket and HTTP are counted as %v", got)
	}

	close(stop)
	traffic.Wait()
	extra := dial(t, g.address("raw"))
	if err := pingPong(extra, "new"); err != nil {
		t.Fatal(err)
	}
	// Only connections of the fingerprint are drained.
	for name, want := range map[string]int32{"raw": streams, "web": 1} {
		resp, err := g.diagnostics.DrainConnections(longContext(t), &adminv1.DrainConnectionsRequest{
			Upstream: name, Sha256Fingerprint: fp, Period: durationpb.New(time.Millisecond),
		})
		if err != nil || resp.GetConnections() != want {
			t.Errorf("%s: drained %d, %v, want %d", name, resp.GetConnections(), err, want)
		}
		eventually(t, name+" has no connection of the first certificate", func() bool { return g.open(name)[fp] == 0 })
	}
	if err := webSocketPingPong(t, ws, "drained"); err == nil {
		t.Error("the drained WebSocket is still open")
	}
	if err := pingPong(extra, "still here"); err != nil {
		t.Errorf("a stream of the current certificate: %v", err)
	}
	if code, body := get(t, base); code != 200 || body != "client 4" {
		t.Errorf("after the drain: %d %q", code, body)
	}
	for _, name := range []string{"raw", "web", "who"} {
		if failures := g.upstream(name).GetEndpoints()[0].GetFailures(); len(failures) != 0 {
			t.Errorf("%s had failures: %v", name, failures)
		}
	}
}

// open returns an upstream's connections by the fingerprint of the client
// certificate.
func (g *gateway) open(name string) map[string]int64 {
	g.t.Helper()
	counts := map[string]int64{}
	for _, c := range g.upstream(name).GetConnectionsByCertificate() {
		counts[c.GetSha256Fingerprint()] = c.GetConnections()
	}
	return counts
}
