package l4_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
)

// A script is what one side of a connection does.
type script struct {
	payload []byte
	chunks  rand.Source
	after   bool // ends its stream only after the other side has
	reset   bool // ends it with a reset
}

// A sight is what one side saw of the other.
type sight struct {
	got []byte
	how string
}

// play carries out a script, then reads to the end and closes.
func (s script) play(p *peer) sight {
	defer p.raw.Conn.Close()
	var seen sight
	read := make(chan struct{})
	go func() {
		defer close(read)
		seen.got, seen.how = p.readAll()
	}()
	rng := rand.New(s.chunks)
	var err error
	for rest := s.payload; len(rest) > 0 && err == nil; {
		n := min(len(rest), 1+rng.IntN(1+rng.IntN(100_000)))
		_, err = p.Write(rest[:n])
		rest = rest[n:]
	}
	if s.after {
		<-read
	}
	switch {
	case err != nil:
	case s.reset:
		p.reset()
	default:
		err = p.closeWrite()
	}
	<-read
	if err != nil && !s.reset {
		// The kernel tells of a reset once, here to the writer; the reader may
		// have seen an end as of a stream.
		seen.how = reset
	}
	return seen
}

// playBoth plays two scripts against each other.
func playBoth(a, b *peer, x, y script) (sight, sight) {
	var first, second sight
	var wg sync.WaitGroup
	wg.Go(func() { first = x.play(a) })
	wg.Go(func() { second = y.play(b) })
	wg.Wait()
	return first, second
}

// scripts returns two scripts that come to an end.
func scripts(seed uint64) (x, y script) {
	rng := rand.New(rand.NewPCG(seed, 1))
	make := func(n uint64) script {
		size := rng.IntN(3)
		p := make([]byte, []int{0, rng.IntN(1000), rng.IntN(400_000)}[size])
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		return script{payload: p, chunks: rand.NewPCG(seed, n), reset: rng.IntN(4) == 0}
	}
	x, y = make(2), make(3)
	switch rng.IntN(3) {
	case 0:
		x.after = true
	case 1:
		y.after = true
	}
	return x, y
}

// Whatever two sides do to each other, they see the same through the gate as
// on a direct connection: the same bytes, and the same kind of end.
func TestGateIsLikeADirectConnection(t *testing.T) {
	p := newPKI(t)
	direct := listen(t, "tcp")
	variants := []combination{
		{"tcp", "tcp", 0, 0},
		{"tcp", "tcp", 0, tls.VersionTLS13},
		{"tcp", "tcp", tls.VersionTLS12, 0},
		{"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS12},
	}
	for seed := range uint64(60) {
		x, y := scripts(seed)
		raw, err := net.Dial("tcp", direct.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, far := playBoth(newPeer(raw, nil), accept(t, direct, nil), x, y)
		c := variants[seed%uint64(len(variants))]
		t.Run(fmt.Sprintf("seed %d, %v", seed, c), func(t *testing.T) {
			x, y := scripts(seed)
			b := c.connect(t, p, l4.Table{})
			bridgedNear, bridgedFar := playBoth(b.client, b.upstream, x, y)
			compare(t, "the client", x, y, near, bridgedNear)
			compare(t, "the upstream", y, x, far, bridgedFar)
		})
	}
}

// compare holds what one side saw against what it saw without the gate.
func compare(t *testing.T, who string, own, others script, direct, bridged sight) {
	t.Helper()
	if own.reset {
		return // who resets sees its own doing
	}
	if direct.how != bridged.how {
		t.Errorf("%s saw a %s end, directly a %s one", who, bridged.how, direct.how)
	}
	if bridged.how == clean && !bytes.Equal(bridged.got, others.payload) {
		t.Errorf("%s got %d bytes and a clean end, want %d", who, len(bridged.got), len(others.payload))
	}
	if !bytes.HasPrefix(others.payload, bridged.got) {
		t.Errorf("%s got bytes that were not sent", who)
	}
}

// Much goes both ways at once, byte for byte.
func TestBigTransfers(t *testing.T) {
	const size = 8 << 20
	p := newPKI(t)
	for _, c := range []combination{
		{"tcp", "tcp", 0, 0}, {"tcp", "tcp", 0, tls.VersionTLS13}, {"unix", "tcp", 0, tls.VersionTLS12},
		{"tcp", "unix", tls.VersionTLS13, 0}, {"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS13},
	} {
		t.Run(c.String(), func(t *testing.T) {
			b := c.connect(t, p, l4.Table{})
			payload := func(n uint64) []byte {
				whole := make([]byte, size)
				rand.NewChaCha8([32]byte{byte(n)}).Read(whole)
				return whole
			}
			x := script{payload: payload(1), chunks: rand.NewPCG(1, 1)}
			y := script{payload: payload(2), chunks: rand.NewPCG(2, 2)}
			near, far := playBoth(b.client, b.upstream, x, y)
			if near.how != clean || !bytes.Equal(near.got, y.payload) {
				t.Errorf("the client got %d bytes and a %s end", len(near.got), near.how)
			}
			if far.how != clean || !bytes.Equal(far.got, x.payload) {
				t.Errorf("the upstream got %d bytes and a %s end", len(far.got), far.how)
			}
			b.wantCounts(t, size, size)
		})
	}
}
