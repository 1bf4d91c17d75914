package upstream_test

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestDialTriesALimitedNumberOfEndpoints(t *testing.T) {
	refused := sockettest.Free(t)
	for most, want := range map[int]uint64{0: 5, 1: 1, 2: 2, 5: 5, 9: 5} {
		var o upstream.Options
		for range 5 {
			o.Endpoints = append(o.Endpoints, endpoint(refused, 1))
		}
		u := upstream.New(o)
		var turn upstream.Turn
		turn.Begin(u, upstream.Key{})
		turn.Bound(upstream.Attempts{MaxEndpoints: most})
		_, _, err := turn.Dial(t.Context(), upstream.Stream, "")
		turn.End()
		var tried uint64
		for _, e := range u.Status() {
			tried += e.Failures[certs.ReasonConnectRefused]
		}
		if err == nil || tried != want || uint64(strings.Count(err.Error(), refused)) < want {
			t.Errorf("at most %d: %d were tried, %v", most, tried, err)
		}
	}
}

// An endpoint that does not answer costs a try only its time, and then the
// next one is tried.
func TestASilentEndpointDelaysADialByItsTimeoutOnly(t *testing.T) {
	ca := certstest.NewCA(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	client, err := certs.NewClient(certs.ClientOptions{Trust: []*certs.TrustBundle{ca.Trust(t)}, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	for limit := 50 * time.Millisecond; ; limit *= 4 {
		u := upstream.New(upstream.Options{Name: "u", HandshakeTimeout: time.Hour, Endpoints: []upstream.EndpointOptions{
			{Network: "tcp", Address: silent.Addr().String(), Stream: client},
		}})
		var turn upstream.Turn
		turn.Begin(u, upstream.Key{})
		turn.Bound(upstream.Attempts{PerEndpoint: limit})
		_, _, err = turn.Dial(t.Context(), upstream.Stream, "")
		turn.End()
		var dial *upstream.DialError
		if errors.As(err, &dial) && dial.Phase == "tcp" && limit < time.Minute {
			continue // a busy machine stalled for that long before it was connected
		}
		if dial == nil || dial.Phase != "tls" || dial.Reason != certs.ReasonHandshakeTimeout {
			t.Errorf("%v", err)
		}
		if s := only(t, u); s.Failures[certs.ReasonHandshakeTimeout] != 1 {
			t.Errorf("%+v", s)
		}
		return
	}
}

// With every policy, the endpoint that a Turn prefers comes first.
func TestATurnStartsWithItsPreferredEndpoint(t *testing.T) {
	for _, p := range policies {
		u := upstream.New(options(p.Policy, make([]int, 5)))
		for _, preferred := range u.Endpoints() {
			var turn upstream.Turn
			turn.Begin(u, upstream.Key{})
			turn.Prefer(preferred)
			for i := range 5 {
				e, err := turn.Next(nil)
				if err != nil || (e == preferred) != (i == 0) {
					t.Errorf("%s: endpoint %d is %v, %v", p.name, i, e, err)
				}
			}
			if _, err := turn.Next(nil); err == nil {
				t.Errorf("%s: an endpoint was returned twice", p.name)
			}
			turn.End()
		}
	}
	draining := endpoint("a", 1)
	draining.Draining = true
	u := upstream.New(upstream.Options{Name: "u", Endpoints: []upstream.EndpointOptions{draining, endpoint("b", 1)}})
	var turn upstream.Turn
	turn.Begin(u, upstream.Key{})
	defer turn.End()
	turn.Prefer(u.Endpoints()[0])
	if e, err := turn.Next(nil); err != nil || e.Address() != "b" {
		t.Errorf("instead of one that is draining: %v, %v", e, err)
	}
}
