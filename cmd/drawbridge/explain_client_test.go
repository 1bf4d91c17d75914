package main

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/cmd/drawbridge/exit"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The flags name the file of the client's certificate, or describe parts of it.
func TestExplainDescribesTheClient(t *testing.T) {
	var request *adminv1.ExplainRouteRequest
	sh := serveFake(t, fakeAdmin{diagnostics: fakeDiagnostics{explain: func(r *adminv1.ExplainRouteRequest) (*adminv1.ExplainRouteResponse, error) {
		request = r
		return text(t, &adminv1.ExplainRouteResponse{}, `action: EXPLAINED_ACTION_RESPOND code: 200 tls_policy {
			field: "tls.policies[0]" hosts: "a.example" certificates: "a" client_auth: CLIENT_AUTH_REQUIRED client_trust_bundles: "t" }`), nil
	}}})
	issued := certstest.NewCA(t).Leaf(t, pki.LeafOptions{Usage: pki.Client, URIs: []string{"spiffe://corp/a"}, DNSNames: []string{"a.example"}})
	file := filepath.Join(t.TempDir(), "client.pem")
	if err := os.WriteFile(file, append(issued.KeyPEM, issued.ChainPEM...), 0o600); err != nil {
		t.Fatal(err)
	}
	sh.run(t.Context(), "explain", "web", "--client-cert", file).want(t, exit.OK, "client TLS tls.policies[0] for a.example, certificate a, client certificate required, trust t")
	id := request.GetClientIdentity()
	if names := id.GetSubjectAltNames(); len(names) != 2 || names[0] != "DNS:a.example" || names[1] != "URI:spiffe://corp/a" || len(id.GetSha256Fingerprint()) != 64 || id.GetIssuer() == "" {
		t.Errorf("%v", id)
	}
	sh.run(t.Context(), "explain", "web", "--client-san", "a", "--client-san", "b", "--client-fingerprint", "f", "--client-issuer", "CN=i").want(t, exit.OK)
	if want := (&adminv1.ExplainedClient{SubjectAltNames: []string{"a", "b"}, Sha256Fingerprint: "f", Issuer: "CN=i"}); !proto.Equal(request.GetClientIdentity(), want) {
		t.Errorf("%v", request)
	}
	if sh.run(t.Context(), "explain", "web").want(t, exit.OK); request.GetClientIdentity() != nil {
		t.Errorf("%v", request)
	}
	sh.run(t.Context(), "explain", "web", "--client-cert", file, "--client-san", "a").want(t, exit.Usage, "cannot be combined with the other --client flags")
	sh.run(t.Context(), "explain", "web", "--client-cert", file+"x").want(t, exit.Usage, "--client-cert")
	if err := os.WriteFile(file, issued.KeyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	sh.run(t.Context(), "explain", "web", "--client-cert", file).want(t, exit.Usage, "holds no certificate in PEM")
}
