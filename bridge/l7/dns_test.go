package l7

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A changingName has addresses that a test changes.
type changingName struct {
	mu sync.Mutex
	at []resolve.Address
}

func (m *changingName) to(addresses ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = nil
	for _, a := range addresses {
		m.at = append(m.at, resolve.Address{At: netip.MustParseAddrPort(a), Name: "localhost", Weight: 1})
	}
}

func (m *changingName) Last() resolve.Answer { return resolve.Answer{} }
func (m *changingName) Adopt(resolve.Answer) {}

func (m *changingName) Ask(context.Context) (resolve.Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return resolve.Answer{Addresses: m.at, Time: time.Now()}, nil
}

// byDNS returns a rotating gateway whose upstream's endpoints come from a DNS name.
func byDNS(w *testbed, p backs.Protocol, m *changingName, o backs.Options, fromHost bool) *rotating {
	r := newRotating(w, p, "")
	protos := map[backs.Protocol][]string{backs.Auto: {"h2", "http/1.1"}, backs.HTTP1: {"http/1.1"}, backs.HTTP2: {"h2"}}[p]
	identity, trust := certstest.Certificate(w, w.ca.Client(w, "gateway")), []*certs.TrustBundle{w.ca.Trust(w)}
	u := upstream.New(upstream.Options{Name: "up", Tracker: r.tracker, Logger: w.logger(hclog.Warn), ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, DNS: &upstream.DNSOptions{
		Resolver: m, Refresh: time.Millisecond, FromHost: fromHost,
		Endpoint: func(a resolve.Address, _ *upstream.Endpoint) (eo upstream.EndpointOptions, err error) {
			client := certs.ClientOptions{Certificate: identity, Trust: trust, ServerName: a.Name, FromHost: fromHost}
			if fromHost {
				client.ServerName = ""
			}
			eo = upstream.EndpointOptions{Network: "tcp", Address: a.At.String(), Authority: a.Name + ":443"}
			if eo.Stream, err = certs.NewClient(client); err == nil {
				client.NextProtos = protos
				eo.HTTP, err = certs.NewClient(client)
			}
			return eo, err
		},
	}})
	o.Upstream, o.Protocol, o.TLS = u, p, true
	r.back = w.newBack(o)
	r.table.Store(&Table{Default: to(r.back)})
	u.Start()
	w.Cleanup(u.Retire)
	return r
}

// status returns the status of the endpoint at the address, if the upstream lists it.
func (r *rotating) status(address string) (s upstream.EndpointStatus) {
	for _, s = range r.back.Upstream().Status() {
		if s.Address == address {
			return s
		}
	}
	return upstream.EndpointStatus{}
}

func TestEndpointsThatDNSChangesUnderTraffic(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		var servers []string
		for range 4 {
			servers = append(servers, w.server(echo, "h2", "http/1.1"))
		}
		for name, fromHost := range map[string]bool{"one name": false, "a name for each host": true} {
			t.Run(name, func(t *testing.T) {
				m := &changingName{}
				m.to(servers[0], servers[1])
				r := byDNS(w, p, m, backs.Options{}, fromHost)
				stop := r.traffic(4)
				eventually(t, "the first endpoints are known", func() bool { return r.status(servers[1]).Of != nil })
				stays := r.status(servers[1]).Of
				for i := range 12 {
					to := []string{servers[1], servers[2+i%2]}
					if i%3 == 0 {
						to = append(to, servers[0])
					}
					m.to(to...)
					eventually(t, "requests go to the new endpoint", func() bool {
						s := r.status(to[1])
						return !s.Left && s.Requests > 20 || w.Failed()
					})
				}
				m.to(servers[1])
				eventually(t, "one endpoint is left", func() bool { return len(r.back.Upstream().Endpoints()) == 1 })
				stop()
				eventually(t, "the connections to the others are closed", func() bool {
					for _, s := range r.back.Upstream().Status() {
						if s.Left && s.Open > 0 {
							return false
						}
					}
					return true
				})
				if s := r.status(servers[1]); s.Of != stays || len(s.Failures) > 0 {
					t.Errorf("the remaining endpoint was replaced, or failed: %+v", s)
				}
			})
		}
	})
}

func TestARequestAtAnEndpointThatLeavesIsServed(t *testing.T) {
	protocols(t, func(t *testing.T, w *testbed, p backs.Protocol) {
		server, other := newSlow(), w.server(echo, "h2", "http/1.1")
		m, address := &changingName{}, w.server(server, "h2", "http/1.1")
		m.to(address)
		r := byDNS(w, p, m, backs.Options{}, false)
		_, idle := w.get(w.browser(), r.url) // the request waits for the first DNS answer
		answer := r.begin("/slow")
		<-server.begun
		m.to(other)
		eventually(t, "the endpoint has left", func() bool { return r.status(address).Left })
		if s := r.status(address); s.Open != 1 || !s.Draining {
			t.Errorf("status %+v", s)
		}
		if _, body := w.get(w.browser(), r.url); !strings.Contains(body, "by gateway") {
			t.Errorf("the next request went to %s", body)
		}
		close(server.release)
		if got := <-answer; got != "200 "+idle {
			t.Errorf("the request in flight: %q, want its answer on %s", got, idle)
		}
		eventually(t, "the connection is closed", func() bool { return r.status(address).Open == 0 })
	})
}

// If an endpoint leaves after a request has chosen it, the request is served,
// and its connection is not kept.
func TestAPoolOfAnEndpointThatHasLeftKeepsNothing(t *testing.T) {
	for _, fromHost := range []bool{false, true} {
		w := newTestbed(t)
		m, one, two := &changingName{}, w.server(echo, "http/1.1"), w.server(echo, "http/1.1")
		m.to(one)
		r := byDNS(w, backs.HTTP1, m, backs.Options{}, fromHost)
		w.get(w.browser(), r.url)
		e := r.status(one).Of
		if r.back.Kept(e) != 1 {
			t.Error("the connection is not kept")
		}
		m.to(two)
		eventually(t, "the endpoint has left", e.Left)
		eventually(t, "its pool is gone", func() bool { return r.back.Kept(e) == 0 })
		var turn upstream.Turn
		turn.Begin(r.back.Upstream(), upstream.Key{})
		defer turn.End()
		late, err := r.back.Get(e, &backs.Need{
			Host: "localhost", Client: new(backs.Client), Turn: &turn,
			Context: func() (context.Context, func()) { return context.Background(), func() {} },
		}, new(backs.BackInfo))
		if err != nil {
			t.Fatal(err)
		}
		var response message.Response
		if err := errors.Join(late.Send(&message.Request{Method: "HEAD", Target: "/", Authority: "localhost"}, true), late.Receive(&response)); err != nil {
			t.Fatal(err)
		}
		if late.Done(); r.back.Kept(e) != 0 {
			t.Error("a connection to an endpoint that left is kept")
		}
	}
}

func TestTheHostOfAnEndpointByDNSIsItsName(t *testing.T) {
	w := newTestbed(t)
	m := &changingName{}
	m.to(w.server(echo, "http/1.1"))
	r := byDNS(w, backs.HTTP1, m, backs.Options{SendUpstreamHost: true}, false)
	if _, body := w.get(w.browser(), r.url); !strings.HasPrefix(body, "HTTP/1.1 GET localhost:443 /") {
		t.Errorf("got %q", body)
	}
}

func TestRequestsAreRefusedUntilDNSAnswers(t *testing.T) {
	w := newTestbed(t)
	m := &changingName{}
	r := byDNS(w, backs.HTTP1, m, backs.Options{}, false)
	if code, body := w.get(w.browser(), r.url); code != http.StatusServiceUnavailable || body != "service unavailable\n" {
		t.Errorf("%d %q", code, body)
	}
}
