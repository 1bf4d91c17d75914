package l4_test

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A changingName resolves to addresses that a test changes.
type changingName struct {
	mu sync.Mutex
	at []resolve.Address
}

func (m *changingName) to(listeners ...net.Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = nil
	for _, ln := range listeners {
		m.at = append(m.at, resolve.Address{At: netip.MustParseAddrPort(ln.Addr().String()), Name: "up.test", Weight: 1})
	}
}

func (m *changingName) Last() resolve.Answer { return resolve.Answer{} }
func (m *changingName) Adopt(resolve.Answer) {}

func (m *changingName) Ask(context.Context) (resolve.Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return resolve.Answer{Addresses: m.at, Time: time.Now()}, nil
}

func TestDNSChangesEndpointsUnderLoad(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	config := p.server(t, "up.test")
	var servers []net.Listener
	for range 4 {
		ln := listen(t, "tcp")
		echo(t, ln, config)
		servers = append(servers, ln)
	}
	m := &changingName{}
	m.to(servers[0], servers[1])
	o := p.upstream(t, "up.test")
	handshakes := func(ctx context.Context, e *upstream.Endpoint) error {
		return e.CheckHandshake(ctx, upstream.Stream, "")
	}
	for _, more := range []upstream.Options{{}, {Warm: 2}, {Check: upstream.CheckOptions{Check: handshakes, Timeout: time.Minute}}} {
		// The timeouts are longer than a busy machine stalls.
		u := upstream.New(upstream.Options{Name: "moving", Warm: more.Warm, Check: more.Check, ConnectTimeout: time.Minute, HandshakeTimeout: time.Minute, DNS: &upstream.DNSOptions{
			Resolver: m, Refresh: time.Millisecond,
			Endpoint: func(a resolve.Address, _ *upstream.Endpoint) (upstream.EndpointOptions, error) {
				c, err := certs.NewClient(o)
				return upstream.EndpointOptions{Network: "tcp", Address: a.At.String(), Stream: c}, err
			},
		}})
		g := serve(t, &l4.Table{Default: to(u)})
		u.Start() // the first clients wait for the first answer
		long := g.dial(t, nil)
		long.Send(t, "begun before")
		long.Want(t, "begun before")

		var clients sync.WaitGroup
		var served atomic.Int64
		done := make(chan struct{})
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if err := echoOnce(g.address); err != nil {
						t.Error(err)
						return
					}
					served.Add(1)
				}
			})
		}
		awaitTraffic := func() {
			t.Helper()
			at := served.Load()
			eventually(t, "connections are served", func() bool { return served.Load() > at+20 || t.Failed() })
		}
		for i := range 10 {
			first := 1 + i%3
			m.to(servers[first], servers[(first+1+i%2)%4]) // two servers: an answer has no duplicates
			awaitTraffic()
		}
		m.to(servers[3])
		eventually(t, "one endpoint is left", func() bool { return len(u.Endpoints()) == 1 })
		awaitTraffic()
		close(done)
		clients.Wait()
		long.Send(t, "continues")
		long.Want(t, "continues")
		long.CloseWrite()
		long.WantEnd(t, "", clean)
		u.Retire()
		eventually(t, "no connection is left open", func() bool {
			for _, s := range u.Status() {
				if s.Open > 0 {
					return false
				}
			}
			return true
		})
	}
}

// echoOnce opens a connection, sends bytes and checks their echo.
func echoOnce(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	return roundTrip(c)
}
