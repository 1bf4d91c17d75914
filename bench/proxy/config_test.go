package proxy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// services are services with different configurations.
var services = map[string]Service{
	"l4":          {},
	"l4-full":     {NoResumption: true},
	"l4-warm":     {Warm: 64},
	"l4-bridge":   {ListenTLS: true},
	"http":        {HTTP: true},
	"http-bridge": {HTTP: true, ListenTLS: true},
	"http2-in":    {HTTP: true, ListenTLS: true, ClientHTTP2: true},
	"http2-out":   {HTTP: true, UpstreamHTTP2: true},
	"grpc":        {HTTP: true, ListenTLS: true, ClientHTTP2: true, UpstreamHTTP2: true, GRPC: true},
	"websocket":   {HTTP: true, WebSocket: true},
	"postgres":    {Postgres: true},
}

func TestConfigurationsMatchTheGoldenFiles(t *testing.T) {
	configs := map[string]struct {
		kind Kind
		text func(work) string
	}{
		"nginx.conf":      {Nginx{}, func(w work) string { return nginxConfig(w, "/modules/ngx_stream_module.so") }},
		"haproxy.cfg":     {HAProxy{}, haproxyConfig},
		"stunnel.conf":    {Stunnel{}, stunnelConfig},
		"drawbridge.yaml": {Drawbridge{}, drawbridgeConfig},
	}
	for name, s := range services {
		for file, c := range configs {
			if c.kind.Unsupported(s) != "" {
				continue
			}
			path := filepath.Join("testdata", name+"."+file)
			got := c.text(work{dir: "/dir", listen: "127.0.0.1:1000", backend: "127.0.0.1:2000", service: s, keys: &keys.Keys{
				CA:       "/keys/ca.pem",
				Client:   keys.Pair{Chain: "/keys/client.pem", Key: "/keys/client-key.pem", Bundle: "/keys/client-bundle.pem"},
				Listener: keys.Pair{Chain: "/keys/listener.pem", Key: "/keys/listener-key.pem", Bundle: "/keys/listener-bundle.pem"},
			}})
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is now:\n%s", path, got)
			}
		}
	}
}

// A peer that verified less would do less work, and the comparison would be
// wrong.
func TestEveryPeerVerifiesTheBackend(t *testing.T) {
	w := work{keys: &keys.Keys{CA: "/keys/ca.pem"}}
	for name, c := range map[string]struct {
		text string
		must []string
	}{
		"nginx for gRPC": {nginxConfig(work{keys: w.keys, service: services["grpc"]}, ""), []string{"grpc_ssl_verify on;", "grpc_ssl_trusted_certificate /keys/ca.pem;", "grpc_ssl_name " + keys.BackendName}},
		"nginx":          {nginxConfig(w, ""), []string{"proxy_ssl_verify on;", "proxy_ssl_trusted_certificate /keys/ca.pem;", "proxy_ssl_name " + keys.BackendName}},
		"haproxy":        {haproxyConfig(w), []string{"verify required", "ca-file /keys/ca.pem", "verifyhost " + keys.BackendName}},
		"stunnel":        {stunnelConfig(w), []string{"verifyChain = yes", "CAfile = /keys/ca.pem", "checkHost = " + keys.BackendName}},
	} {
		for _, must := range c.must {
			if !strings.Contains(c.text, must) {
				t.Errorf("%s lacks %q:\n%s", name, must, c.text)
			}
		}
	}
}
