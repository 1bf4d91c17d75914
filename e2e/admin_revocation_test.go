// After a caller's certificate is revoked, the admin service refuses the caller
// and ends its open connection.

package e2e

import (
	"crypto/tls"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// clientConfig returns the client side of TLS with the authority's client
// certificate.
func (a *authority) clientConfig(t *testing.T) *tls.Config {
	return &tls.Config{RootCAs: pool(a.ca), ServerName: serverName, Certificates: []tls.Certificate{keyPair(t, a.client)}}
}

func TestCallerThatIsRevokedIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	good := clientCert(t, a.ca, "another operator")
	lists := writeFile(t, filepath.Join(t.TempDir(), "clients.crl"), crl(t, a.ca))
	g := startGateway(t, append(adminTCPFlags(t, a), "--admin-client-crl", lists)...)
	address := g.logged(adminUp)

	watch := func(client *pki.Issued) (adminv1.StatusServiceClient, adminv1.StatusService_WatchEventsClient) {
		config := a.clientConfig(t)
		config.Certificates = []tls.Certificate{keyPair(t, client)}
		calls := adminv1.NewStatusServiceClient(dialAdmin(t, address, credentials.NewTLS(config)))
		if _, err := calls.GetStatus(longContext(t), &adminv1.GetStatusRequest{}); err != nil {
			t.Fatalf("before the revocation: %v", err)
		}
		events, err := calls.WatchEvents(longContext(t), &adminv1.WatchEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return calls, events
	}
	revokedCalls, revokedEvents := watch(a.client)
	goodCalls, goodEvents := watch(good)

	writeFile(t, lists, crl(t, a.ca, a.client))
	g.signal(syscall.SIGHUP)
	if _, err := revokedEvents.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the live connection of the revoked caller: %v", err)
	}
	if _, err := revokedCalls.GetStatus(longContext(t), &adminv1.GetStatusRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a new connection of the revoked caller: %v", err)
	}
	eventually(t, "the log says why the connection ended", func() bool { return g.out.contains("the caller no longer has access") })
	if _, err := goodCalls.GetStatus(longContext(t), &adminv1.GetStatusRequest{}); err != nil {
		t.Errorf("another caller: %v", err)
	}
	// The other caller's stream continues: it receives the next event.
	g.apply(trustBundle("ca", a.ca))
	if e, err := goodEvents.Recv(); err != nil || e.GetType() != adminv1.EventType_EVENT_TYPE_APPLIED {
		t.Errorf("the stream of another caller: %v, %v", e, err)
	}
}
