package backs

import (
	"fmt"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// fromHost returns Pools of an upstream that takes the server name from the request.
// Nothing listens there.
func fromHost(t *testing.T) *Pools {
	ca := certstest.NewCA(t)
	client, err := certs.NewClient(certs.ClientOptions{
		FromHost: true, Certificate: certstest.Certificate(t, ca.Client(t, "gateway")),
		Trust: []*certs.TrustBundle{ca.Trust(t)}, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	pools := New(Options{TLS: true, Protocol: HTTP1, Upstream: upstream.New(upstream.Options{
		Name: "up", Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: "127.0.0.1:1", HTTP: client, Stream: client}},
	})})
	t.Cleanup(pools.Retire)
	return pools
}

// Any client can request any host, so the least recently used pools are
// evicted.
func TestPoolsOfHostsAreBounded(t *testing.T) {
	back := fromHost(t)
	e := back.Upstream().Endpoints()[0]
	first, second := back.pool(e, &Need{Host: "first"}), back.pool(e, &Need{Host: "second"})
	for i := range maxHostPools - 2 {
		back.pool(e, &Need{Host: fmt.Sprint(i)})
	}
	if back.pool(e, &Need{Host: "first"}) != first {
		t.Error("a pool is not found again")
	}
	back.pool(e, &Need{Host: "one more"})
	if n := back.Kept(e); n != maxHostPools || back.hosts.recent.Len() != n {
		t.Errorf("%d pools, %d in order", n, back.hosts.recent.Len())
	}
	if !second.retired || first.retired {
		t.Error("the evicted pool was not the least recently used")
	}
	if back.pool(e, &Need{Host: "first"}) != first || back.pool(e, &Need{Host: "second"}) == second {
		t.Error("an evicted pool was found again, or a kept pool was not")
	}
	back.Retire()
	if !first.retired || !back.pool(e, &Need{Host: "new"}).retired || back.Kept(e) != maxHostPools {
		t.Error("retired Pools keep new ones")
	}
}
