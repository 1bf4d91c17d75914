// If one server of a group fails and the route has retries, clients do not
// notice, and requests are resent unchanged. The budget limits the extra load
// of retries in an outage.

package e2e

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// retried returns a route with retries.
func retried(name, listener, prefix, upstream string, r *adminv1.Retry) *adminv1.Route {
	route := forward(name, listener, prefix, upstream)
	route.GetForward().Retry = r
	return route
}

func TestClientsDoNotNoticeABadServerOfAGroup(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	good := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %x", r.Method, sha256.Sum256(b))
	})
	// The path selects the failure: nginx closes the connection for 444.
	bad := startNginx(t, nginxConfig{
		ports: 2,
		files: nginxFiles(a.ca, a.server),
		http: func(n *nginx) string {
			server := func(port int, listen string) string {
				return fmt.Sprintf(`server {
    listen %s %s;
    client_max_body_size 10m;
    %s
    location /closes { return 444; }
    location /busy { return 503 "busy"; }
    location /limited { return 429; }
    location /reads { client_body_in_single_buffer on; client_body_buffer_size 1m; proxy_pass http://%s/busy; }
    location /broken { return 500; }
  }`, n.address(port), listen, n.mutualTLS(), n.address(1))
			}
			return server(0, "ssl") + fmt.Sprintf("server {\n listen %s;\n location / { return 503; }\n }", n.address(1))
		},
	})
	g := startGateway(t)
	policy := &adminv1.Retry{Codes: []int32{429, 503}, Methods: []string{"POST"}, MaxBodyBytes: new(int32(100_000)), Backoff: durationpb.New(time.Millisecond)}
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("group", a.settings(), good, bad.address(0)),
		listener("web", protocolHTTP, ""), retried("all", "web", "/", "group", policy),
	)
	web := "http://" + g.address("web")
	send := func(method, path string, n int) (int, string) {
		body := bytes.Repeat([]byte("x"), n)
		req, _ := http.NewRequest(method, web+path, bytes.NewReader(body))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := readBody(resp)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, text
	}
	for _, path := range []string{"/closes", "/busy", "/limited", "/reads"} {
		for _, method := range []string{"GET", "POST", "PUT"} {
			for i := range 4 { // whichever server is first
				n := map[string]int{"GET": 0, "POST": 5, "PUT": 99_999}[method]
				want := fmt.Sprintf("%s %x", method, sha256.Sum256(bytes.Repeat([]byte("x"), n)))
				if code, text := send(method, path, n); code != 200 || text != want {
					t.Errorf("%s %s, %d: %d %.100q", method, path, i, code, text)
				}
			}
		}
	}
	if s := g.upstream("group"); s.GetRetries() == 0 || s.GetRetriesRefused() != 0 {
		t.Errorf("%d retries, %d refused", s.GetRetries(), s.GetRetriesRefused())
	}
	// Methods not in the policy and bodies over the limit are not retried: half
	// of these requests fail at the bad server.
	for path, want := range map[string]int{"/broken": 500, "/reads": 503} {
		seen := map[int]int{}
		for range 8 {
			code, _ := send("PUT", path, 200_000)
			seen[code]++
		}
		if seen[200] == 0 || seen[want] == 0 || seen[200]+seen[want] != 8 {
			t.Errorf("%s: answered %v", path, seen)
		}
	}
}

func TestTriesThatTakeTooLong(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	stuck := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	g := startGateway(t)
	timed := retried("timed", "web", "/timed", "group", &adminv1.Retry{PerTryTimeout: durationpb.New(2 * time.Second), Attempts: new(int32(10))})
	alone := retried("alone", "web", "/alone", "stuck", &adminv1.Retry{PerTryTimeout: durationpb.New(200 * time.Millisecond), Attempts: new(int32(3))})
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client),
		upstream("group", a.settings(), stuck, serveHTTPS(t, a.serverConfig(t), respondsWith("good"))), upstream("stuck", a.settings(), stuck),
		listener("web", protocolHTTP, ""), timed, alone,
	)
	for range 2 {
		if code, text := get(t, "http://"+g.address("web")+"/timed"); code != 200 || text != "good" {
			t.Errorf("%d %q", code, text)
		}
	}
	if code, text := get(t, "http://"+g.address("web")+"/alone"); code != 504 || text != "gateway timeout\n" {
		t.Errorf("%d %q", code, text)
	}
	if n := g.upstream("stuck").GetRetries(); n != 2 {
		t.Errorf("%d retries", n)
	}
}

func TestAStormOfRetriesIsHeldByTheBudget(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var tries atomic.Int64
	failing := serveHTTPS(t, a.serverConfig(t), func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		<-time.After(100 * time.Millisecond) // the time to process a request, longer than a busy machine needs to forward it
		http.Error(w, "overloaded", http.StatusServiceUnavailable)
	})
	g := startGateway(t)
	g.apply(
		trustBundle("ca", a.ca), certificate("client", a.client), upstream("web", a.settings(), failing), listener("web", protocolHTTP, ""),
		retried("all", "web", "/", "web", &adminv1.Retry{Attempts: new(int32(4)), Codes: []int32{503}}),
	)
	const clients, each = 50, 20
	url := "http://" + g.address("web")
	var all sync.WaitGroup
	var wrong atomic.Int64
	for range clients {
		all.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for range each {
				if code, text, err := tryGet(t, client, url); err != nil || code != 503 || !strings.HasPrefix(text, "overloaded") {
					wrong.Add(1)
				}
			}
		})
	}
	all.Wait()
	s := g.upstream("web")
	ratio := float64(tries.Load()) / (clients * each)
	t.Logf("%d requests made %d tries: %.2f for each, where 4 are allowed; %d retries, %d refused", clients*each, tries.Load(), ratio, s.GetRetries(), s.GetRetriesRefused())
	if ratio > 1.35 || s.GetRetries() == 0 || s.GetRetriesRefused() == 0 {
		t.Errorf("%.2f tries for each request", ratio)
	}
	if wrong.Load() > 0 {
		t.Errorf("%d clients did not get the upstream's own answer", wrong.Load())
	}
}
