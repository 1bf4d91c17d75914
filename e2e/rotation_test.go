// After a rotation, the upstream sees the new client certificate from the next
// connection on. Running streams lose no byte, and sessions of the old identity
// are never resumed.

package e2e

import (
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestRotatedCertificateIsUsedByTheNextConnection(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	behind := serveConns(t, nil, echo)
	n := startNginx(t, nginxConfig{
		ports: 4,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			const server = `server {
    listen %s ssl;
    %s
    keepalive_timeout %s;
    ssl_session_cache shared:http:1m;
    return 200 "$ssl_client_serial $ssl_session_reused";
  }
`
			return fmt.Sprintf(server, n.address(0), n.mutualTLS(), "0") + fmt.Sprintf(server, n.address(1), n.mutualTLS(), "60s")
		},
		stream: func(n *nginx) string {
			return fmt.Sprintf(`ssl_session_cache shared:stream:1m;
  server {
    listen %s ssl;
    %s
    return "$ssl_client_serial $ssl_session_reused";
  }
  server {
    listen %s ssl;
    %s
    proxy_pass %s;
    proxy_half_close on;
  }`, n.address(2), n.mutualTLS(), n.address(3), n.mutualTLS(), behind)
		},
	})

	g := startGateway(t)
	settings := a.settings()
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client))
	for i, name := range []string{"http", "kept", "tcp", "echo"} {
		protocol := protocolHTTP
		if i >= 2 {
			protocol = protocolTCP
		}
		g.apply(upstream(name, settings, n.address(i)), listener(name, protocol, name))
	}
	// This client connection stays open over every rotation.
	kept := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	t.Cleanup(kept.CloseIdleConnections)
	ask := func(name string) (serial string, resumed bool) {
		t.Helper()
		var answer string
		var err error
		switch name {
		case "tcp":
			answer, err = exchange(t, g.address(name), "")
		case "kept":
			_, answer, err = tryGet(t, kept, "http://"+g.address(name)+"/")
		default:
			_, answer = get(t, "http://"+g.address(name)+"/")
		}
		serial, flag, ok := strings.Cut(answer, " ")
		if err != nil || !ok {
			t.Fatalf("%s: %q, %v", name, answer, err)
		}
		return serial, flag == "r"
	}

	// These streams run throughout the test. Each sends its own bytes without a
	// pause.
	stop := make(chan struct{})
	var streams sync.WaitGroup
	for i := range 8 {
		conn := dial(t, g.address("echo"))
		if err := pingPong(conn, "hello\n"); err != nil {
			t.Fatal(err)
		}
		streams.Go(func() {
			for j := 0; ; j++ {
				if err := pingPong(conn, strings.Repeat(fmt.Sprintf("stream %d line %d\n", i, j), 500)); err != nil {
					t.Errorf("stream %d: %v", i, err)
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}

	issued := a.client
	for round := range 4 {
		if round > 0 {
			issued = clientCert(t, a.ca, fmt.Sprintf("e2e client %d", round))
			resp, err := g.admin.PutCertificate(longContext(t), &adminv1.PutCertificateRequest{Certificate: certificate("client", issued)})
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.GetCertificate().GetInfo().GetSubject(); !strings.Contains(got, fmt.Sprint(round)) {
				t.Errorf("the answer has the subject %q", got)
			}
		}
		for _, name := range []string{"http", "kept", "tcp"} {
			serial, resumed := ask(name)
			if !sameSerial(serial, issued) {
				t.Errorf("round %d: %s saw the serial %s, want %X", round, name, serial, issued.Leaf.SerialNumber)
			}
			if resumed {
				t.Errorf("round %d: %s resumed a session made before the rotation", round, name)
			}
			// Sessions of the new identity are resumed.
			serial, resumed = ask(name)
			if !sameSerial(serial, issued) || (!resumed && name != "kept") {
				t.Errorf("round %d: then %s saw the serial %s, resumed %v", round, name, serial, resumed)
			}
		}
	}
	close(stop)
	streams.Wait()
	if draining := g.getStatus().GetListeners(); len(draining) != 4 {
		t.Errorf("a rotation replaced a listener: %v", draining)
	}
}

func TestRotatedTrustIsUsedByTheNextConnection(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	config := a.serverConfig(t)
	raw := serveConns(t, config, echo)
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("raw", a.settings(), raw),
		listener("raw", protocolTCP, "raw"),
	)
	for range 2 { // the second leaves a session to resume
		if answer, err := exchange(t, g.address("raw"), "before"); err != nil || answer != "before" {
			t.Fatalf("%q, %v", answer, err)
		}
	}
	running := dial(t, g.address("raw"))
	if err := pingPong(running, "running"); err != nil {
		t.Fatal(err)
	}

	if _, err := g.admin.PutTrustBundle(longContext(t), &adminv1.PutTrustBundleRequest{TrustBundle: trustBundle("ca", other.ca)}); err != nil {
		t.Fatal(err)
	}
	if answer, _ := exchange(t, g.address("raw"), "after"); answer != "" {
		t.Errorf("an upstream that is no longer trusted answered %q", answer)
	}
	expectReason(t, g, "raw", adminv1.Reason_REASON_UNKNOWN_CA)
	if err := pingPong(running, "still running"); err != nil {
		t.Errorf("the running stream: %v", err)
	}
}

// sameSerial reports whether the text from nginx is the serial of a
// certificate.
func sameSerial(spelled string, issued *pki.Issued) bool {
	serial, ok := new(big.Int).SetString(spelled, 16)
	return ok && serial.Cmp(issued.Leaf.SerialNumber) == 0
}
