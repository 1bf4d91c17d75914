package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
)

// tlsServer starts an HTTPS server with the given names, and returns its
// address.
func tlsServer(t *testing.T, ca *certstest.CA, names ...string) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, names...))}, ClientAuth: tls.RequestClientCert}
	srv.Config.ErrorLog = nil
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// bridge writes a configuration with a listener, a client certificate, and an
// upstream whose certificate must match name.
func bridge(t *testing.T, ca *certstest.CA, name string, addresses ...string) string {
	t.Helper()
	dir := t.TempDir()
	client := ca.Client(t, "gateway")
	writeFile(t, dir, "ca.pem", string(ca.TrustPEM()))
	writeFile(t, dir, "client.pem", string(client.ChainPEM)+string(client.KeyPEM))
	endpoints := `{address: "` + strings.Join(addresses, `"}, {address: "`) + `"}`
	return writeFile(t, dir, "bridge.yaml", fmt.Sprintf(`kind: TrustBundle
name: corp
file: ca.pem
---
kind: Certificate
name: client
files: {certificatePath: client.pem}
---
kind: Upstream
name: pay
endpoints: [%s]
tls: {certificate: client, trustBundles: [corp], serverName: %s}
---
kind: Listener
name: web
address: 127.0.0.1:0
protocol: HTTP
upstream: pay
`, endpoints, name))
}

func TestARealUpstreamIsProbed(t *testing.T) {
	_, sh := serve(t)
	ca := certstest.NewCA(t)
	good, bad := tlsServer(t, ca, "pay.test"), tlsServer(t, ca, "other.test", "another.test")

	file := bridge(t, ca, "pay.test", good)
	sh.run(t.Context(), "apply", "-f", file, "--require-probe", "all").want(t, exit.OK, "Revision 1 is live.")
	sh.run(t.Context(), "probe", "pay").want(t, exit.OK, good+"  OK\n", "negotiated     TLS 1.3", "requested, ours was sent", "└─ CN=pay.test", "(not presented)")

	both := bridge(t, ca, "pay.test", good, bad)
	r := sh.run(t.Context(), "apply", "-f", both, "--require-probe", "all")
	r.want(t, exit.Conflict, bad+"  FAILED  NAME_MISMATCH\n", "✗ is not for pay.test\n")
	sh.run(t.Context(), "get", "upstream", "pay", "-o", "yaml").want(t, exit.OK, "revision: \"1\"")
	sh.run(t.Context(), "apply", "-f", both, "--require-probe", "any").want(t, exit.OK, "updated   Upstream")

	r = sh.run(t.Context(), "probe", "pay", "-o", "json")
	r.want(t, exit.Failure, "Error: 1 of 2 endpoints failed\n")
	var answer struct {
		Results []struct {
			Endpoint, Outcome, Reason, Explanation string
			Suggestion                             struct{ Field, Value, Text string }
		}
	}
	if err := json.Unmarshal([]byte(r.out), &answer); err != nil || len(answer.Results) != 2 {
		t.Fatalf("%v in %s", err, r.out)
	}
	if ok := answer.Results[0]; ok.Endpoint != good || ok.Outcome != "OK" || ok.Reason != "" {
		t.Errorf("the first result is %+v", ok)
	}
	failed := answer.Results[1]
	if failed.Endpoint != bad || failed.Outcome != "FAILED" || failed.Reason != "NAME_MISMATCH" || failed.Suggestion.Field != "tls.verify_name" || failed.Suggestion.Value == "" {
		t.Errorf("the second result is %+v", failed)
	}
	for _, fact := range []string{"other.test", "another.test", "pay.test"} {
		if !strings.Contains(failed.Explanation, fact) {
			t.Errorf("no %s in %s", fact, failed.Explanation)
		}
	}
	sh.run(t.Context(), "probe", "pay", "--endpoint", good).want(t, exit.OK)
	sh.run(t.Context(), "probe", "none").want(t, exit.NotFound, "none")
	sh.run(t.Context(), "probe", "-f", bridge(t, ca, "other.test", bad)).want(t, exit.OK, bad+"  OK\n")
	unknown := writeFile(t, t.TempDir(), "u.yaml", "kind: Upstream\nname: pay\nendpoints:\n- address: nowhere\n")
	sh.run(t.Context(), "probe", "-f", unknown).want(t, exit.Invalid, unknown+":4: document 1 (Upstream pay): endpoints[0].address: ")
}

func TestARealRequestIsExplainedAndItsConnectionDrained(t *testing.T) {
	_, sh := serve(t)
	ca := certstest.NewCA(t)
	sh.run(t.Context(), "apply", "-f", bridge(t, ca, "pay.test", tlsServer(t, ca, "pay.test"))).want(t, exit.OK)
	sh.run(t.Context(), "explain", "web", "--host", "a.test", "--path", "/x").want(t, exit.OK,
		"forward  by no route", "upstream pay  100%", "client certificate client (SHA-256 ", "trust              corp", "SNI pay.test, verified for pay.test")
	sh.run(t.Context(), "explain", "none").want(t, exit.NotFound, "none")

	get(t, sh)
	sh.run(t.Context(), "status").want(t, exit.OK, "1 full (NO_TICKET), 0 resumed")
	sh.run(t.Context(), "status", "--certificates").want(t, exit.OK, " own ", " trust ", " upstream ", "CN=pay.test", "upstream pay")
	sh.run(t.Context(), "flush-sessions", "pay").want(t, exit.OK, " with pay discarded.\n")
	sh.run(t.Context(), "drain", "pay", "--fingerprint", strings.Repeat("0", 64)).want(t, exit.OK, "0 connections to pay will be closed within 30s.\n")
	sh.run(t.Context(), "drain", "pay", "--period", "1s").want(t, exit.OK, "1 connection to pay will be closed within 1s.\n")
	sh.run(t.Context(), "drain", "none").want(t, exit.NotFound, "none")
	sh.run(t.Context(), "flush-sessions", "none").want(t, exit.NotFound, "none")
}

func TestAFailedHandshakeIsWatched(t *testing.T) {
	_, sh := serve(t)
	ca := certstest.NewCA(t)
	lines, table := start(t, sh.env, "watch", "-o", "json"), start(t, sh.env, "watch")
	lines.out.until(t, "}\n", 1)
	table.out.until(t, "revision 0", 1)
	sh.run(t.Context(), "apply", "-f", bridge(t, ca, "pay.test", tlsServer(t, ca, "other.test"))).want(t, exit.OK)
	get(t, sh)
	lines.out.until(t, `"type":"ENDPOINT_HEALTH"`, 1)
	lines.out.until(t, `"reason":"NAME_MISMATCH"`, 1)
	table.out.until(t, "created  Upstream pay\n", 1)
	table.out.until(t, " down     Upstream pay ", 1)
	table.out.until(t, " NAME_MISMATCH: ", 1)
}

// get sends a request to listener web.
func get(t *testing.T, sh shell) {
	t.Helper()
	var st struct {
		Status struct {
			Listeners []struct{ BoundAddress string }
		}
	}
	r := sh.run(t.Context(), "status", "-o", "json")
	if err := json.Unmarshal([]byte(r.out), &st); err != nil || len(st.Status.Listeners) != 1 {
		t.Fatalf("%v in %s", err, r.out)
	}
	// The client stays connected until the end of the test. If it disconnected
	// after its answer, the gateway could close the connection to the upstream.
	transport := &http.Transport{DialContext: new(net.Dialer).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := (&http.Client{Transport: transport}).Get("http://" + st.Status.Listeners[0].BoundAddress + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
}

func TestSecretsOfEverySourceAreNeverShown(t *testing.T) {
	_, sh := serve(t)
	ca := certstest.NewCA(t)
	issued := ca.Client(t, "gateway")
	archive, err := pkcs12.Modern2026.WithIterations(1).Encode(certstest.TLS(t, issued).PrivateKey, issued.Leaf, nil, "s3cret-pass")
	if err != nil {
		t.Fatal(err)
	}
	data := base64.StdEncoding.EncodeToString(archive)
	dir := t.TempDir()
	writeFile(t, dir, "c.p12", string(archive))
	writeFile(t, dir, "c.pass", "s3cret-pass\n")
	config := writeFile(t, dir, "c.yaml", fmt.Sprintf(`kind: Certificate
name: inline
pkcs12: {data: %s, passphrase: s3cret-pass}
---
kind: Certificate
name: file
files: {certificatePath: c.p12, passphrasePath: c.pass}
---
kind: TrustBundle
name: corp
pem: |
  %s
crls: [{file: corp.crl}]
`, data, strings.ReplaceAll(strings.TrimSpace(string(ca.TrustPEM())), "\n", "\n  ")))
	writeFile(t, dir, "corp.crl", string(ca.CRL(t)))
	wrong := writeFile(t, dir, "wrong.yaml", strings.ReplaceAll(readFile(t, config), "passphrase: s3cret-pass", "passphrase: s3cret-passe"))

	watching := start(t, sh.env, "watch", "-o", "json")
	watching.out.until(t, "}\n", 1)
	var shown strings.Builder
	for _, args := range [][]string{
		{"apply", "-f", wrong}, {"apply", "-f", config, "-o", "json"}, {"get", "all", "-o", "yaml"}, {"get", "certificates", "-o", "json"},
		{"get", "certificates"}, {"get", "trustbundles"}, {"status", "-o", "json"}, {"status", "--certificates", "-o", "yaml"},
	} {
		r := sh.run(t.Context(), args...)
		shown.WriteString(r.out + r.err)
	}
	sh.run(t.Context(), "apply", "-f", wrong).want(t, exit.Invalid, filepath.Base(wrong)+":3: document 1 (Certificate inline): pkcs12.passphrase: ")
	sh.run(t.Context(), "get", "certificates").want(t, exit.OK, "pkcs12", "files", "CN=gateway")
	sh.run(t.Context(), "get", "trustbundles").want(t, exit.OK, "1, next update in ")

	// The output is a configuration. Applying it does not change anything.
	again := sh
	again.in = sh.run(t.Context(), "get", "all", "-o", "yaml").out
	again.run(t.Context(), "apply", "-f", "-", "--prune").want(t, exit.OK, "Nothing to change")
	watching.out.until(t, "}\n", 2)
	shown.WriteString(watching.out.String())
	for _, secret := range []string{"s3cret", data[:40], "PRIVATE KEY"} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("%q was shown:\n%s", secret, shown.String())
		}
	}
}
