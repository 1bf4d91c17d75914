// Routes are added, changed and removed with grpcurl under traffic. Each answer
// means that the change is live. The traffic is not interrupted.

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

func TestRoutesChangeUnderTraffic(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	one := serveHTTPS(t, a.serverConfig(t), respondsWith("one"))
	two := serveHTTPS(t, a.serverConfig(t), respondsWith("two"))

	g := startGateway(t)
	// All calls use grpcurl, as in the API's documentation.
	g.grpcurl("PutTrustBundle", fmt.Sprintf(`{"trustBundle": {"name": "corp", "pem": %s}}`, quote(a.ca.RootPEM())))
	g.grpcurl("PutCertificate", fmt.Sprintf(`{"certificate": {"name": "client", "pem": {"certificateChain": %s, "privateKey": %s}}}`,
		quote(a.client.ChainPEM), quote(a.client.KeyPEM)))
	for name, address := range map[string]string{"payments": one, "payments-v2": two} {
		g.grpcurl("PutUpstream", fmt.Sprintf(`{"upstream": {"name": %q, "endpoints": [{"address": %q}],
			"tls": {"certificate": "client", "trustBundles": ["corp"], "verifyDepth": 2}}}`, name, address))
	}
	g.grpcurl("PutListener", `{"listener": {"name": "payments", "address": "127.0.0.1:0", "protocol": "PROTOCOL_HTTP", "upstream": "payments"}}`)
	base := "http://" + g.address("payments")

	var requests atomic.Int64
	stop := make(chan struct{})
	finished := make(chan error, 4)
	for range cap(finished) {
		go func() {
			for {
				select {
				case <-stop:
					finished <- nil
					return
				default:
				}
				code, body, err := tryGet(t, oneRequestClient, base+"/steady")
				if err != nil || code != 200 || body != "one" {
					finished <- fmt.Errorf("%d %q %v", code, body, err)
					return
				}
				requests.Add(1)
			}
		}()
	}
	expect := func(what, path string, wantCode int, want string) {
		t.Helper()
		if code, body := get(t, base+path); code != wantCode || body != want {
			t.Errorf("%s: %s is %d %q, want %d %q", what, path, code, body, wantCode, want)
		}
	}
	for range 5 {
		g.grpcurl("PutRoute", `{"route": {"name": "v2", "listeners": ["payments"], "match": {"hosts": ["127.0.0.1"], "path": {"prefix": "/v2/"}},
			"forward": {"upstreams": [{"name": "payments-v2", "weight": 1}]}}}`)
		expect("added", "/v2/x", 200, "two")
		expect("added", "/v1/x", 200, "one")
		g.grpcurl("PutRoute", `{"route": {"name": "v2", "listeners": ["payments"], "match": {"path": {"prefix": "/v2/"}},
			"respond": {"code": 410, "body": "gone"}}}`)
		expect("changed", "/v2/x", 410, "gone")
		g.grpcurl("DeleteRoute", `{"name": "v2"}`)
		expect("removed", "/v2/x", 200, "one")
	}
	already := requests.Load()
	eventually(t, "traffic still flows", func() bool { return requests.Load() > already || len(finished) > 0 })
	close(stop)
	for range cap(finished) {
		if err := <-finished; err != nil {
			t.Error("steady traffic:", err)
		}
	}
}

func TestGrpcurlDescribesTheAPI(t *testing.T) {
	t.Parallel()
	g := startGateway(t)
	services := g.grpcurlRaw("", "list").stdout
	for _, want := range []string{"drawbridge.admin.v1.AdminService", "drawbridge.admin.v1.StatusService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} {
		if !strings.Contains(services, want) {
			t.Errorf("grpcurl list does not name %s:\n%s", want, services)
		}
	}
	described := g.grpcurlRaw("", "describe", "drawbridge.admin.v1.UpstreamTls").stdout
	for _, want := range []string{"verify_depth", "session_reuse"} {
		if !strings.Contains(described, want) {
			t.Errorf("grpcurl describe lacks %s:\n%s", want, described)
		}
	}
	// An error lists all faults, each with its path.
	r := g.grpcurlRaw(`{"upstream": {"name": "Bad Name", "endpoints": [{"address": "nowhere"}], "tls": {"certificate": "missing", "minVersion": "TLS_VERSION_1_3", "maxVersion": "TLS_VERSION_1_2"}}}`,
		"drawbridge.admin.v1.AdminService/PutUpstream")
	for _, want := range []string{"InvalidArgument", "upstream.name", "upstream.endpoints[0].address", "upstream.tls.certificate", "upstream.tls.min_version"} {
		if !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("the error lacks %s:\n%s", want, r)
		}
	}
	if r.code == 0 {
		t.Error("grpcurl returned 0 for an error")
	}
}

// grpcurl calls a method of the admin service and returns the answer.
func (g *gateway) grpcurl(method, request string) string {
	g.t.Helper()
	r := g.grpcurlRaw(request, "drawbridge.admin.v1.AdminService/"+method)
	if r.code != 0 {
		g.t.Fatalf("grpcurl %s: %s", method, r)
	}
	return r.stdout
}

func (g *gateway) grpcurlRaw(request string, args ...string) result {
	g.t.Helper()
	flags := []string{"-plaintext"}
	if request != "" {
		flags = append(flags, "-d", "@")
	}
	return commandInput(g.t, request, grpcurlPath(g.t), append(append(flags, "unix://"+g.socket), args...)...)
}

// grpcurlPath returns the Makefile's grpcurl, or else the system's.
func grpcurlPath(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("GRPCURL"); path != "" {
		return path
	}
	return need(t, "grpcurl")
}

// quote writes text as a JSON string.
func quote(text []byte) string {
	quoted, err := json.Marshal(string(text))
	if err != nil {
		panic(err) // a string always marshals
	}
	return string(quoted)
}
