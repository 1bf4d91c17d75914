package l4_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// load returns how many connections to hold open and for how long: DRAWBRIDGE_STRESS,
// such as "4000,3m", or a small default.
func load(t *testing.T) (conns int, long time.Duration) {
	conns, long = 100, 2*time.Second
	if of := os.Getenv("DRAWBRIDGE_STRESS"); of != "" {
		n, d, _ := strings.Cut(of, ",")
		var err error
		if long, err = time.ParseDuration(d); err == nil {
			_, err = fmt.Sscan(n, &conns)
		}
		if err != nil {
			t.Fatalf("DRAWBRIDGE_STRESS=%s: %v", of, err)
		}
	}
	return conns, long
}

// A stressGate is a gate that carries many conversations at once.
type stressGate struct {
	*gate
	combination
	upstreams                          net.Listener
	clientTLSConfig, upstreamTLSConfig *tls.Config // nil: plaintext

	mu    sync.Mutex
	convs map[uint64]*stressConversation // conversations that the upstream expects, by number
}

// A stressConversation is a conversation whose upstream side starts when its connection arrives.
type stressConversation struct {
	*splicetest.Conversation
	number   uint64
	upstream chan *peer // the upstream's end
}

func newStressGate(t *testing.T, p pki, c combination) *stressGate {
	s := &stressGate{combination: c, upstreams: listen(t, c.upstreamNetwork), convs: make(map[uint64]*stressConversation)}
	endpoint := plain(s.upstreams)
	// A busy machine needs a long timeout.
	table := &l4.Table{HandshakeTimeout: splicetest.Timeout}
	if c.upstreamTLS != 0 {
		s.upstreamTLSConfig = p.server(t, "upstream.test")
		s.upstreamTLSConfig.MaxVersion = c.upstreamTLS
		s.upstreamTLSConfig.SetSessionTicketKeys([][32]byte{{1}}) // shared by all clones
		endpoint = over(t, s.upstreams, p.upstream(t, "upstream.test"))
	}
	if c.clientTLS != 0 {
		table.TLS = p.listener(t, "gate.test")
		s.clientTLSConfig = p.client("gate.test")
		s.clientTLSConfig.MaxVersion = c.clientTLS
		s.clientTLSConfig.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	}
	table.Default = to(upstream.New(upstream.Options{
		Name: "group", Endpoints: []upstream.EndpointOptions{endpoint}, ConnectTimeout: splicetest.Timeout, HandshakeTimeout: splicetest.Timeout,
	}))
	s.gate = open(t, c.clientNetwork, l4.Options{Table: func() *l4.Table { return table }})
	return s
}

// withSecrets returns a copy of config that records its traffic secrets, or nil if
// config is nil.
func withSecrets(config *tls.Config) (*tls.Config, *splicetest.Secrets) {
	config = config.Clone()
	return config, splicetest.RecordSecrets(config)
}

// serveUpstreams accepts connections until the listener is closed, and passes each to
// the conversation whose number it begins with.
func (s *stressGate) serveUpstreams(t *testing.T) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		raw, err := s.upstreams.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			config, secrets := withSecrets(s.upstreamTLSConfig)
			p := splicetest.NewPeer(raw, splicetest.Server(config))
			var number [8]byte
			if _, err := io.ReadFull(p.Conn, number[:]); err != nil {
				raw.Close()
				t.Errorf("an upstream's connection: %v", err)
				return
			}
			s.mu.Lock()
			conv := s.convs[binary.BigEndian.Uint64(number[:])]
			s.mu.Unlock()
			p.Reseal(t, secrets, false, rand.New(rand.NewPCG(conv.number, 1)), conv.RecordSize(false), 100)
			conv.upstream <- p
		})
	}
}

// connect opens a connection through the gate and sends the conversation's number to the upstream.
func (s *stressGate) connect(t *testing.T, conv *stressConversation) (near, far *peer, _ error) {
	s.mu.Lock()
	s.convs[conv.number] = conv
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.convs, conv.number)
	}()
	raw, err := net.Dial(s.network, s.address)
	if err != nil {
		return nil, nil, err
	}
	config, secrets := withSecrets(s.clientTLSConfig)
	near = splicetest.NewPeer(raw, splicetest.Client(config))
	if _, err := near.Write(binary.BigEndian.AppendUint64(nil, conv.number)); err != nil {
		raw.Close()
		return nil, nil, err
	}
	near.Reseal(t, secrets, true, rand.New(rand.NewPCG(conv.number, 2)), conv.RecordSize(true), 100)
	select {
	case far = <-conv.upstream:
		return near, far, nil
	case <-time.After(splicetest.Timeout):
		raw.Close()
		return nil, nil, errors.New("the upstream received no connection")
	}
}

// converse runs conversation number over a new connection. It calls ready once the
// connection exists.
func (s *stressGate) converse(t *testing.T, number uint64, ready func()) {
	conv := &stressConversation{number: number, upstream: make(chan *peer, 1)}
	conv.Conversation = splicetest.Converse(number, splicetest.Bounds{
		Largest:     100_000,
		Incomplete:  s.clientNetwork == "tcp" && s.upstreamNetwork == "tcp",
		Truncatable: [2]bool{s.clientTLSConfig != nil, s.upstreamTLSConfig != nil},
	})
	near, far, err := s.connect(t, conv)
	ready()
	if err != nil {
		t.Errorf("conversation %d: %v", number, err)
		return
	}
	for side, seen := range conv.PlayBoth(near, far) {
		if wrong := conv.Check(side, seen); wrong != "" {
			t.Errorf("conversation %d, %v, side %d %s", number, s.combination, side, wrong)
		}
	}
}

// Among many connections with all kinds of traffic, no connection receives the
// bytes or the end of another one. Afterward no goroutine and no descriptor is
// left.
func TestManyConnectionsAtOnce(t *testing.T) {
	conns, long := load(t)
	listen(t, "tcp").Close() // starts the runtime's poller
	goroutines, descriptors := goleak.IgnoreCurrent(), countDescriptors()
	p := newPKI(t)
	gates := []*stressGate{
		newStressGate(t, p, combination{"tcp", "tcp", 0, tls.VersionTLS13}),
		newStressGate(t, p, combination{"tcp", "tcp", tls.VersionTLS13, tls.VersionTLS13}),
		newStressGate(t, p, combination{"tcp", "tcp", 0, 0}),
		newStressGate(t, p, combination{"unix", "tcp", tls.VersionTLS12, tls.VersionTLS12}),
		newStressGate(t, p, combination{"tcp", "unix", tls.VersionTLS13, 0}),
	}
	var upstreams sync.WaitGroup
	for _, s := range gates {
		upstreams.Go(func() { s.serveUpstreams(t) })
	}
	var clients, connected sync.WaitGroup
	connected.Add(conns)
	open, end := make(chan struct{}), make(chan struct{})
	for i := range conns {
		clients.Go(func() {
			s := gates[i%len(gates)]
			ready := func() { connected.Done(); <-open } // the first conversation waits until all connections are open
			for n := 0; n == 0 || !isClosed(end); n++ {
				s.converse(t, uint64(n*conns+i), ready)
				ready = func() {}
			}
		})
	}
	connected.Wait()
	total := uint64(0)
	for _, s := range gates {
		total += s.Stats().Open
	}
	if total != uint64(conns) {
		t.Errorf("%d connections are open at once, want %d", total, conns)
	}
	time.AfterFunc(long, func() { close(end) })
	close(open)
	clients.Wait()

	var accepted uint64
	for _, s := range gates {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		stats := s.Stats()
		accepted += stats.Accepted
		if stats.Open != 0 || stats.Rejected != 0 || stats.DialFailures != 0 || len(stats.HandshakeFailures) != 0 {
			t.Errorf("%v: %+v", s.combination, stats)
		}
	}
	t.Logf("%d connections", accepted)
	for _, s := range gates {
		s.upstreams.Close()
	}
	upstreams.Wait()
	eventually(t, "every descriptor is closed", func() bool { return countDescriptors() <= descriptors })
	for _, s := range gates { // lets the cleanup of open return
		s.served <- <-s.served
	}
	if err := goleak.Find(goroutines); err != nil {
		t.Error(err)
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// countDescriptors returns how many descriptors the process has open; 0 if unknown.
func countDescriptors() int {
	fds, _ := os.ReadDir("/proc/self/fd")
	return len(fds)
}
