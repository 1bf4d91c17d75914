// HTTP bodies stream in both directions, in either HTTP version: no part waits
// for the end, no byte is lost, and trailers arrive.

package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestBodiesStreamBothWays(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	backend := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/lines": // this handler answers each line when it arrives
			rc := http.NewResponseController(w)
			_ = rc.EnableFullDuplex()
			w.Header().Set("Trailer", "X-Lines")
			n := 0
			for lines := bufio.NewScanner(r.Body); lines.Scan(); n++ {
				_, _ = fmt.Fprintln(w, "got", lines.Text())
				_ = rc.Flush()
			}
			w.Header().Set("X-Lines", fmt.Sprint(n))
		case "/sum":
			h := sha256.New()
			_, _ = io.Copy(h, r.Body)
			_, _ = fmt.Fprintf(w, "%x", h.Sum(nil))
		case "/proto":
			_, _ = io.WriteString(w, r.Proto)
		}
	})

	g := startGateway(t)
	one, two := upstream("http1", a.settings(), backend), upstream("http2", a.settings(), backend)
	one.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
	two.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server), one, two)

	big := make([]byte, 8<<20)
	_, _ = rand.Read(big)
	for _, upstream := range []string{"http1", "http2"} {
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			name := "to-" + upstream + "-from-http" + version[5:6]
			l := listener(name, protocolHTTP, upstream)
			l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
			g.apply(l)
			transport := &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: pool(a.ca), ServerName: serverName},
				ForceAttemptHTTP2: version == "HTTP/2.0",
			}
			t.Cleanup(transport.CloseIdleConnections)
			url := "https://" + g.address(name)

			t.Run(name, func(t *testing.T) {
				do := func(path string, body io.Reader) *http.Response {
					t.Helper()
					req, err := http.NewRequestWithContext(longContext(t), http.MethodPost, url+path, body)
					if err != nil {
						t.Fatal(err)
					}
					resp, err := transport.RoundTrip(req)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = resp.Body.Close() })
					if resp.StatusCode != 200 || resp.Proto != version {
						t.Fatalf("%s: %s %s", path, resp.Proto, resp.Status)
					}
					return resp
				}
				if got, err := readBody(do("/proto", nil)); err != nil || got[5:6] != upstream[4:] {
					t.Errorf("the upstream saw %q, %v", got, err)
				}
				sum := do("/sum", io.MultiReader(bytes.NewReader(big))) // a body of unknown length
				if got, err := readBody(sum); err != nil || got != fmt.Sprintf("%x", sha256.Sum256(big)) {
					t.Errorf("the upstream got different bytes: %v", err)
				}

				send, lines := io.Pipe()
				go func() { _, _ = fmt.Fprintln(lines, "line 0") }()
				resp := do("/lines", send)
				answers := bufio.NewReader(resp.Body)
				for i := range 5 {
					got, err := answers.ReadString('\n')
					if want := fmt.Sprintf("got line %d\n", i); err != nil || got != want {
						t.Fatalf("answer %d is %q, %v", i, got, err)
					}
					if i < 4 { // the next line depends on the answer
						_, _ = fmt.Fprintln(lines, "line", i+1)
					}
				}
				_ = lines.Close()
				if rest, err := io.ReadAll(answers); err != nil || len(rest) > 0 {
					t.Errorf("after the last line: %q, %v", rest, err)
				}
				if got := resp.Trailer.Get("X-Lines"); got != "5" {
					t.Errorf("the trailer is %q", got)
				}
			})
		}
	}
}
