package l4_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
)

// seeds returns the seeds to try: those of DRAWBRIDGE_SEEDS ("first,count"), or a fixed
// range. A failing test names its seed.
func seeds(t *testing.T, count uint64) (first, end uint64) {
	if of := os.Getenv("DRAWBRIDGE_SEEDS"); of != "" {
		if _, err := fmt.Sscanf(of, "%d,%d", &first, &count); err != nil {
			t.Fatalf("DRAWBRIDGE_SEEDS=%s: %v", of, err)
		}
	}
	return first, first + count
}

// draw returns a combination and a menu for its conversation.
func draw(seed uint64) (combination, menu) {
	rng := rand.New(rand.NewPCG(seed, 4))
	networks := [][2]string{{"tcp", "tcp"}, {"tcp", "tcp"}, {"unix", "tcp"}, {"tcp", "unix"}, {"unix", "unix"}}[rng.IntN(5)]
	versions := []uint16{0, tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13}
	c := combination{networks[0], networks[1], versions[rng.IntN(4)], versions[rng.IntN(4)]}
	return c, menu{
		largest:     []int{1000, 100_000, 1 << 20, 8 << 20}[rng.IntN(4)],
		incomplete:  networks == [2]string{"tcp", "tcp"}, // unix-domain sockets have no reset
		truncatable: [2]bool{c.clientTLS != 0, c.upstreamTLS != 0},
	}
}

// In any order of events, both sides see the same through the gate as on a direct
// connection: the same bytes and the same kind of end. DRAWBRIDGE_SEEDS=first,count
// tries other seeds.
func TestGateIsLikeADirectConnection(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	first, end := seeds(t, 120)
	for seed := first; seed < end; seed++ {
		c, m := draw(seed)
		t.Run(fmt.Sprintf("seed %d, %v", seed, c), func(t *testing.T) {
			talk := converse(seed, m)
			client, upstream := connectDirectly(t, p, m)
			direct := talk.playBoth(client, upstream)

			talk = converse(seed, m)
			b := c.connect(t, p, l4.Table{})
			rng := rand.New(rand.NewPCG(seed, 5))
			for _, x := range []struct {
				*peer
				*secrets
				isClient bool
			}{{b.client, b.clientSecrets, true}, {b.upstream, b.upstreamSecrets, false}} {
				most, pad := []int{talk.records(x.isClient), 1 << 14}[rng.IntN(2)], []int{0, 1 << 10, 1 << 14}[rng.IntN(3)]
				x.resealed(t, x.secrets, x.isClient, rand.New(rand.NewPCG(seed, 6)), most, pad)
			}
			bridged := talk.playBoth(b.client, b.upstream)
			for side, who := range []string{"the client", "the upstream"} {
				if wrong := talk.check(side, direct[side]); wrong != "" {
					t.Errorf("directly, %s %s", who, wrong)
				}
				if wrong := talk.check(side, bridged[side]); wrong != "" {
					t.Errorf("%s %s", who, wrong)
				}
			}
			if !t.Failed() && talk.sides[0].ends == clean && talk.sides[1].ends == clean {
				b.wantCounts(t, len(talk.sides[0].payload), len(talk.sides[1].payload))
			}
		})
	}
}

// records returns a record size that does not cut a side's script into too many
// records.
func (c *conversation) records(isClient bool) int {
	side := 1
	if isClient {
		side = 0
	}
	return 1 + len(c.sides[side].payload)/1000
}

// connectDirectly connects two peers, over TLS if one of them must be able to truncate
// a stream.
func connectDirectly(t *testing.T, p pki, m menu) (*peer, *peer) {
	ln := listen(t, "tcp")
	var clientTLS, upstreamTLS *tls.Config
	if m.truncatable[0] || m.truncatable[1] {
		clientTLS, upstreamTLS = p.client("direct.test"), p.server(t, "direct.test")
	}
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	near, far := newPeer(raw, client(clientTLS)), accept(t, ln, upstreamTLS)
	shaken := make(chan error, 1)
	go func() { shaken <- near.shake() }()
	if err := errors.Join(far.shake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// Large transfers in both directions at once arrive byte for byte.
func TestBigTransfers(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	p := newPKI(t)
	for _, c := range []combination{
		{"tcp", "tcp", 0, 0}, {"tcp", "tcp", 0, tls.VersionTLS13}, {"unix", "tcp", 0, tls.VersionTLS12},
		{"tcp", "unix", tls.VersionTLS13, 0}, {"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS13},
	} {
		t.Run(c.String(), func(t *testing.T) {
			b := c.connect(t, p, l4.Table{})
			talk := &conversation{broken: make(chan struct{})}
			for side := range talk.sides {
				s := script{ends: clean, seed: uint64(side), chunk: 100_000, payload: make([]byte, size)}
				fill(s.payload, s.seed)
				s.parts = []*part{{to: size}, {to: size, end: true}}
				talk.sides[side] = s
			}
			sights := talk.playBoth(b.client, b.upstream)
			for side, seen := range sights {
				if wrong := talk.check(side, seen); wrong != "" {
					t.Errorf("side %d %s", side, wrong)
				}
			}
			b.wantCounts(t, size, size)
		})
	}
}
