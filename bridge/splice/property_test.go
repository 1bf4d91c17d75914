package splice_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
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
func draw(seed uint64) (combination, splicetest.Bounds) {
	rng := rand.New(rand.NewPCG(seed, 4))
	networks := [][2]string{{"tcp", "tcp"}, {"tcp", "tcp"}, {"unix", "tcp"}, {"tcp", "unix"}, {"unix", "unix"}}[rng.IntN(5)]
	versions := []uint16{0, tls.VersionTLS12, tls.VersionTLS13, tls.VersionTLS13}
	c := combination{networks[0], networks[1], versions[rng.IntN(4)], versions[rng.IntN(4)]}
	return c, splicetest.Bounds{
		Largest:     []int{1000, 100_000, 1 << 20, 8 << 20}[rng.IntN(4)],
		Incomplete:  networks == [2]string{"tcp", "tcp"}, // unix-domain sockets have no reset
		Truncatable: [2]bool{c.clientTLS != 0, c.upstreamTLS != 0},
	}
}

// keepMoving moves the splice from loop to loop until it ends.
func (b *bridge) keepMoving() {
	go func() {
		for moves := 0; ; {
			select {
			case <-b.ended:
				return
			default:
			}
			if b.Move() {
				moves++
			}
			time.Sleep(time.Duration(moves) * time.Microsecond) // ever more seldom: a long transfer must not take forever
		}
	}()
}

// In any order of events, and while a splice moves between loops, both sides see the same bytes and the same kind of end
// through the splice as on a direct connection. DRAWBRIDGE_SEEDS=first,count tries
// other seeds.
func TestSpliceIsLikeADirectConnection(t *testing.T) {
	t.Parallel()
	ca := certstest.NewCA(t)
	first, end := seeds(t, 50)
	for seed := first; seed < end; seed++ {
		c, m := draw(seed)
		t.Run(fmt.Sprintf("seed %d, %v", seed, c), func(t *testing.T) {
			talk := splicetest.Converse(seed, m)
			client, upstream := connectDirectly(t, ca, m)
			direct := talk.PlayBoth(client, upstream)

			talk = splicetest.Converse(seed, m)
			b := c.connect(t, engineOf(t, kinds[seed%3]), ca, splice.Options{})
			rng := rand.New(rand.NewPCG(seed, 5))
			for _, x := range []struct {
				*splicetest.Peer
				*splicetest.Secrets
				isClient bool
			}{{b.client, b.clientSecrets, true}, {b.upstream, b.upstreamSecrets, false}} {
				most, pad := []int{talk.RecordSize(x.isClient), 1 << 14}[rng.IntN(2)], []int{0, 1 << 10, 1 << 14}[rng.IntN(3)]
				x.Reseal(t, x.Secrets, x.isClient, rand.New(rand.NewPCG(seed, 6)), most, pad)
			}
			if kinds[seed%3] == "loops" {
				b.keepMoving()
			}
			bridged := talk.PlayBoth(b.client, b.upstream)
			for side, sideName := range []string{"the client", "the upstream"} {
				if wrong := talk.Check(side, direct[side]); wrong != "" {
					t.Errorf("directly, %s %s", sideName, wrong)
				}
				if wrong := talk.Check(side, bridged[side]); wrong != "" {
					t.Errorf("%s %s", sideName, wrong)
				}
			}
			if up, down, whole := talk.Sizes(); whole && !t.Failed() {
				b.wantCounts(t, up, down)
			}
		})
	}
}

// connectDirectly connects two peers, over TLS if one of them must be able to truncate
// a stream.
func connectDirectly(t *testing.T, ca *certstest.CA, m splicetest.Bounds) (*splicetest.Peer, *splicetest.Peer) {
	both := connect(t, "tcp")
	if !m.Truncatable[0] && !m.Truncatable[1] {
		return splicetest.NewPeer(both.far, nil), splicetest.NewPeer(both.near.Conn, nil)
	}
	near := splicetest.NewPeer(both.far, splicetest.Client(clientTLS(ca, "direct.test")))
	far := splicetest.NewPeer(both.near.Conn, splicetest.Server(serverTLS(t, ca, "direct.test")))
	handshakes := make(chan error, 1)
	go func() { handshakes <- near.Handshake() }()
	if err := errors.Join(far.Handshake(), <-handshakes); err != nil {
		t.Fatal(err)
	}
	return near, far
}

// Large transfers in both directions at once arrive byte for byte.
func TestBigTransfers(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	ca := certstest.NewCA(t)
	for _, c := range []combination{
		{"tcp", "tcp", 0, 0}, {"tcp", "tcp", 0, tls.VersionTLS13}, {"unix", "tcp", 0, tls.VersionTLS12},
		{"tcp", "unix", tls.VersionTLS13, 0}, {"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS13},
	} {
		t.Run(c.String(), func(t *testing.T) {
			b := c.connect(t, engineOf(t, "loops"), ca, splice.Options{})
			talk := splicetest.Transfer(size)
			b.keepMoving()
			outcomes := talk.PlayBoth(b.client, b.upstream)
			for side, seen := range outcomes {
				if wrong := talk.Check(side, seen); wrong != "" {
					t.Errorf("side %d %s", side, wrong)
				}
			}
			b.wantCounts(t, size, size)
		})
	}
}
