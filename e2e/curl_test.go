// curl, in each HTTP version it supports, reaches upstreams of either version.
// The upstream can send or refuse 100 (Continue), bodies and trailers arrive
// complete, and HTTP/1.0 clients get responses that they understand.

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestCurl(t *testing.T) {
	t.Parallel()
	curl := need(t, "curl")
	a := newAuthority(t)
	backend := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sum":
			h := sha256.New()
			_, _ = io.Copy(h, r.Body) // the first read sends 100 (Continue)
			_, _ = fmt.Fprintf(w, "%s %x", r.Proto, h.Sum(nil))
		case "/no":
			http.Error(w, "not today", http.StatusForbidden)
		case "/trailer":
			w.Header().Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "body")
			w.(http.Flusher).Flush()
			w.Header().Set("X-Sum", "42")
		case "/hints":
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, "hinted")
		case "/stream": // the body has no length
			for range 1000 {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
				w.(http.Flusher).Flush()
			}
		}
	})

	g := startGateway(t)
	one, two := upstream("http1", a.settings(), backend), upstream("http2", a.settings(), backend)
	one.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_1_1}
	two.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client), certificate("front", a.server), one, two)

	dir := t.TempDir()
	ca := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	big := bytes.Repeat([]byte("0123456789abcde\n"), 128<<10)
	file := writeFile(t, filepath.Join(dir, "big"), big)
	sum := fmt.Sprintf("%x", sha256.Sum256(big))
	for _, upstream := range []string{"http1", "http2"} {
		plain, secure := listener("plain-"+upstream, protocolHTTP, upstream), listener("secure-"+upstream, protocolHTTP, upstream)
		secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
		g.apply(plain, secure)
		for _, c := range []struct {
			version, url string
			flags        []string
		}{
			{"1.0", "http://" + g.address(plain.Name), []string{"--http1.0"}},
			{"1.1", "http://" + g.address(plain.Name), []string{"--http1.1"}},
			{"2", "http://" + g.address(plain.Name), []string{"--http2-prior-knowledge"}},
			{"1.0", "https://" + serverName, []string{"--http1.0"}},
			{"1.1", "https://" + serverName, []string{"--http1.1"}},
			{"2", "https://" + serverName, []string{"--http2"}},
		} {
			t.Run(fmt.Sprint(c.version, " ", strings.Split(c.url, ":")[0], " to ", upstream), func(t *testing.T) {
				run := func(path string, flags ...string) string {
					t.Helper()
					all := append([]string{"-sS", "--max-time", "90", "--expect100-timeout", "90", "--cacert", ca, "--connect-to", serverName + ":443:" + g.address(secure.Name)}, c.flags...)
					r := command(t, curl, append(append(all, flags...), c.url+path)...)
					if r.code != 0 {
						t.Errorf("%s: %v", path, r)
					}
					return r.stdout
				}
				answers := c.version
				if answers == "1.0" {
					answers = "1.1" // the response has the server's own version
				}
				want := map[string]string{"http1": "HTTP/1.1 ", "http2": "HTTP/2.0 "}[upstream] + sum
				if got := run("/sum", "-T", file, "-w", " %{http_version} %{http_code}"); got != want+" "+answers+" 200" {
					t.Errorf("upload: %q", got)
				}
				// A client that expects 100 (Continue) gets it, or the final response. Over
				// HTTP/2 curl sends the body at once, and a server may then omit the 100
				// (RFC 9110, section 10.1.1).
				got := run("/sum", "-T", file, "-H", "Expect: 100-continue", "-i")
				if !strings.HasSuffix(got, want) {
					t.Errorf("Expect: %q", got)
				}
				if c.version != "2" && strings.Contains(got, " 100") == (c.version == "1.0") {
					t.Errorf("Expect: %q", got)
				}
				// The gateway waits only a second for the upstream's answer before it asks for
				// the body, and the machine may stall for longer.
				for range 5 {
					if got = run("/no", "-T", file, "-H", "Expect: 100-continue", "-i"); !strings.Contains(got, " 100") {
						break
					}
				}
				if !strings.Contains(got, " 403") || !strings.HasSuffix(got, "not today\n") || c.version != "2" && strings.Contains(got, " 100") {
					t.Errorf("Expect, refused: %q", got)
				}
				got = run("/trailer", "-i", "-H", "TE: trailers")
				if has := strings.Contains(strings.ToLower(got), "x-sum: 42"); has == (c.version == "1.0") || !strings.Contains(got, "body") {
					t.Errorf("trailers: %q", got)
				}
				got = run("/hints", "-i")
				if has := strings.Contains(got, " 103"); has == (c.version == "1.0") || !strings.HasSuffix(got, "hinted") {
					t.Errorf("103: %q", got)
				}
				if got := run("/stream"); len(got) != 1_000_000 {
					t.Errorf("a body without a length: %d bytes", len(got))
				}
				if got := run("/stream", "-I", "-w", "%{http_code}"); !strings.HasSuffix(got, "200") {
					t.Errorf("HEAD: %q", got)
				}
			})
		}
	}
}
