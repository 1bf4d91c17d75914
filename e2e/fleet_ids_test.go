package e2e

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Two gateways with one ID are reported. An upgrade and a restart after kill -9 are not, and the
// gateway stays connected during an upgrade.
func TestTwoGatewaysWithOneIDAreReported(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cluster := startEtcd(t, a, 1)
	flags := func(id string) []string { return append(cluster.flags(), "--gateway-id", id) }
	observer := startGateway(t, flags("observer")...)
	x := upgradable(t, flags("x")...)
	listed := func(id string) *adminv1.Gateway {
		all, err := adminv1.NewFleetServiceClient(dialAdmin(t, "unix:"+observer.socket, insecure.NewCredentials())).ListGateways(longContext(t), &adminv1.ListGatewaysRequest{})
		if err != nil {
			return nil // the gateway does not reach etcd yet
		}
		for _, g := range all.GetGateways() {
			if g.GetGatewayId() == id {
				return g
			}
		}
		return nil
	}
	connected := func(id string) (g *adminv1.Gateway) {
		t.Helper()
		eventually(t, "the gateway is connected", func() bool {
			g = listed(id)
			return g.GetConnected()
		})
		return g
	}
	connected("x")

	second := startGateway(t, flags("x")...)
	eventually(t, "the second gateway with the ID is reported", func() bool {
		return strings.Contains(observer.cli("gateways").stdout, "connected; 1 other gateway with the same ID: unix:"+second.socket)
	})
	for _, show := range []struct {
		args []string
		want string
	}{
		{[]string{"status"}, `another gateway uses the ID "x"`},
		{[]string{"status", "--fleet"}, "1 whose ID other gateways use too"},
	} {
		if r := second.cli(show.args...); !strings.Contains(r.stdout, show.want) {
			t.Errorf("%v at the second gateway: %v", show.args, r)
		}
	}
	second.stop()
	eventually(t, "the ID has one gateway", func() bool {
		g := listed("x")
		return g.GetConnected() && len(g.GetDuplicates()) == 0
	})

	client, err := clientv3.New(clientv3.Config{Endpoints: cluster.clients, DialTimeout: testTimeout, Logger: zap.NewNop(),
		TLS: &tls.Config{Certificates: []tls.Certificate{keyPair(t, a.client)}, RootCAs: pool(a.ca)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	const key = "/drawbridge/alive/x"
	before, err := client.Get(t.Context(), key)
	if err != nil || len(before.Kvs) != 1 {
		t.Fatalf("the claim of the ID: %v, %v", before, err)
	}
	changes := client.Watch(t.Context(), key, clientv3.WithRev(before.Header.GetRevision()+1))
	replaced := func(g *gateway, old *adminv1.Gateway) {
		t.Helper()
		eventually(t, "the new process is listed", func() bool {
			now := listed(old.GetGatewayId())
			return now.GetConnected() && now.GetProcessId() != old.GetProcessId() && len(now.GetDuplicates()) == 0
		})
		for _, w := range g.getStatus().GetWarnings() {
			if w.GetCode() == adminv1.WarningCode_WARNING_CODE_FLEET_DUPLICATE_ID {
				t.Errorf("the new process reports a duplicate: %v", w)
			}
		}
	}
	old := connected("x")
	x.upgrade()
	replaced(x, old)
	select {
	case resp := <-changes:
		if len(resp.Events) != 1 || resp.Events[0].Type != clientv3.EventTypePut {
			t.Errorf("the upgrade changed the claim of the ID: %v", resp.Events)
		}
	case <-time.After(testTimeout):
		t.Error("the new process did not claim the ID")
	}
	if x.out.contains("two gateways use the same ID") {
		t.Error("the old process reports a duplicate")
	}

	killed := startGateway(t, flags("killed")...)
	old = connected("killed")
	killed.kill()
	replaced(killed.restart(), old)
}
