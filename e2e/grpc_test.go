// All kinds of gRPC calls work through HTTP listeners: those of grpc-go's
// interoperability client and server, and of ghz. If the gateway itself
// answers, the answer has a gRPC status.

package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// interopCases are the test cases of the grpc-go client that do not need a
// cloud.
var interopCases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message",
	"special_status_message", "custom_metadata", "unimplemented_method", "unimplemented_service",
}

// grpcUpstream is an upstream with HTTP/2.
func grpcUpstream(name string, settings *adminv1.UpstreamTls, addresses ...string) *adminv1.Upstream {
	u := upstream(name, settings, addresses...)
	u.Http = &adminv1.UpstreamHttp{Protocol: adminv1.HttpProtocol_HTTP_PROTOCOL_2}
	return u
}

// triesOf returns how often to try a case. In one the client cancels a call and then completes it:
// on a busy machine the response may come before the client has noticed its own cancellation.
func triesOf(test string) int {
	if test == "cancel_after_begin" {
		return 5
	}
	return 1
}

func TestInteroperabilityOfGRPC(t *testing.T) {
	t.Parallel()
	serverPath, clientPath := need(t, "grpc-interop-server"), need(t, "grpc-interop-client")
	a := newAuthority(t)
	dir := t.TempDir()
	ca := writeFile(t, filepath.Join(dir, "ca.pem"), a.ca.RootPEM())
	cert, key := writeFile(t, filepath.Join(dir, "cert.pem"), a.server.ChainPEM), writeFile(t, filepath.Join(dir, "key.pem"), a.server.KeyPEM)
	var backend string
	for range 5 { // another program may take a free port first
		backend = freeAddresses(t, 1)[0]
		_, port, _ := net.SplitHostPort(backend)
		server := start(t, serverPath, "--port", port, "--use_tls", "--tls_cert_file", cert, "--tls_key_file", key)
		eventually(t, "the server listens", func() bool { return server.done() || !refuses(backend) })
		if !server.done() {
			break
		}
	}

	g := startGateway(t)
	secure := listener("secure", protocolHTTP, "interop")
	secure.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.apply(trustBundle("ca", a.ca), certificate("front", a.server),
		grpcUpstream("interop", &adminv1.UpstreamTls{TrustBundles: []string{"ca"}, ServerName: serverName}, backend),
		listener("plain", protocolHTTP, "interop"), secure)

	for _, name := range []string{"plain", "secure"} {
		host, port, _ := net.SplitHostPort(g.address(name))
		args := []string{"--server_host", host, "--server_port", port}
		if name == "secure" {
			args = append(args, "--use_tls", "--use_test_ca", "--ca_file", ca, "--server_host_override", serverName)
		}
		for _, test := range interopCases {
			var r result
			for range triesOf(test) {
				if r = command(t, clientPath, append(args, "--test_case", test)...); r.code == 0 {
					break
				}
			}
			if r.code != 0 {
				t.Errorf("%s, %s: %v", test, name, r)
			}
		}
	}
}

// serveGRPC starts a server with reflection and a health service that reports
// SERVING.
func serveGRPC(t testing.TB, config *tls.Config) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	healthv1.RegisterHealthServer(s, health.NewServer())
	reflection.Register(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr().String()
}

func TestEveryCallOfGhzIsAnswered(t *testing.T) {
	t.Parallel()
	ghz := need(t, "ghz")
	a := newAuthority(t)
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client),
		grpcUpstream("grpc", a.settings(), serveGRPC(t, a.serverConfig(t))), listener("plain", protocolHTTP, "grpc"))
	for _, test := range []struct{ call, data string }{
		{"grpc.health.v1.Health/Check", `{}`},
		{"grpc.reflection.v1.ServerReflection/ServerReflectionInfo", `[{"list_services": ""}, {"file_containing_symbol": "grpc.health.v1.Health"}]`},
	} {
		// ghz uses reflection, a bidirectional stream, to find the method.
		r := command(t, ghz, "--insecure", "--timeout", "90s", "--connect-timeout", "90s", "--call", test.call, "-d", test.data, "-n", "2000", "-c", "20", "-O", "json", g.address("plain"))
		var report struct {
			Count                  int            `json:"count"`
			StatusCodeDistribution map[string]int `json:"statusCodeDistribution"`
		}
		if err := json.Unmarshal([]byte(r.stdout), &report); err != nil || r.code != 0 {
			t.Fatalf("%s: %v: %v", test.call, err, r)
		}
		if report.Count != 2000 || report.StatusCodeDistribution["OK"] != 2000 {
			t.Errorf("%s: %d calls, %v", test.call, report.Count, report.StatusCodeDistribution)
		}
	}
}

func TestStatusOfGRPCWhereTheGatewayAnswers(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverConfig(t)
	config.NextProtos = []string{"h2"}
	silent := serveConns(t, config, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1<<20)); <-t.Context().Done() })
	g := startGateway(t)
	g.apply(trustBundle("ca", a.ca), certificate("client", a.client),
		grpcUpstream("gone", a.settings(), freeAddresses(t, 1)...), grpcUpstream("silent", a.settings(), silent),
		listener("unrouted", protocolHTTP, ""), listener("gone", protocolHTTP, "gone"), listener("silent", protocolHTTP, ""),
		&adminv1.Route{Name: "silent", Listeners: []string{"silent"}, Match: &adminv1.RouteMatch{}, Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
			Upstreams: []*adminv1.WeightedUpstream{{Name: "silent"}}, Timeout: durationpb.New(200 * time.Millisecond)}}})
	for name, want := range map[string]codes.Code{
		"unrouted": codes.Unimplemented, "gone": codes.Unavailable, "silent": codes.DeadlineExceeded,
	} {
		conn, err := grpc.NewClient(g.address(name), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
		_, err = healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
		cancel()
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}
