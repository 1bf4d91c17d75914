package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
)

func TestFamiliesAlternate(t *testing.T) {
	for found, want := range map[string]string{
		"10.0.0.1":                          "10.0.0.1",
		"::1 ::2 10.0.0.1":                  "::1 10.0.0.1 ::2",
		"10.0.0.1 10.0.0.2 10.0.0.3 ::1":    "10.0.0.1 ::1 10.0.0.2 10.0.0.3",
		"::ffff:10.0.0.1 10.0.0.2":          "10.0.0.1 10.0.0.2",
		strings.Repeat("10.0.0.1 ", 40):     strings.Repeat("10.0.0.1 ", maxAttempts),
		"10.0.0.1 ::1 ::2 10.0.0.2 ::3 ::4": "10.0.0.1 ::1 10.0.0.2 ::2 ::3 ::4",
	} {
		var addrs []netip.Addr
		for a := range strings.FieldsSeq(found) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		var got []string
		for _, a := range inTurns(addrs) {
			got = append(got, a.String())
		}
		if !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: %v", found, got)
		}
	}
}

// A racer is an attempt that succeeds or fails after some time, or when its
// context ends.
type racer struct {
	after time.Duration
	err   error
}

type namedConn struct {
	net.Conn
	name   int
	closed *int
}

func (c namedConn) Close() error { *c.closed++; return nil }

func TestRaceReturnsTheFirstConnection(t *testing.T) {
	failed := errors.New("refused")
	for _, tc := range []struct {
		name   string
		racers []racer
		winner int // -1: no winner
		after  time.Duration
	}{
		{"the first answers in time", []racer{{after: 200 * time.Millisecond}, {}}, 0, 200 * time.Millisecond},
		{"the first attempt gets no answer", []racer{{after: time.Hour}, {after: time.Millisecond}}, 1, 251 * time.Millisecond},
		{"the first answers late, but before the second", []racer{{after: 300 * time.Millisecond}, {after: time.Second}}, 0, 300 * time.Millisecond},
		{"the first fails at once", []racer{{err: failed}, {after: time.Millisecond}}, 1, time.Millisecond},
		{"most attempts get no answer", []racer{{after: time.Hour}, {after: time.Hour}, {after: time.Hour}, {}}, 3, 750 * time.Millisecond},
		{"two attempts get no answer, and one fails", []racer{{after: time.Hour}, {err: failed}, {after: time.Hour}, {}}, 3, 500 * time.Millisecond},
		{"all fail", []racer{{after: time.Second, err: failed}, {err: errors.New("unreachable")}}, -1, time.Second},
		{"no attempt is answered", []racer{{after: time.Hour}, {after: time.Hour}}, -1, 5 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				closed, connected := 0, 0
				start := time.Now()
				c, err := race(ctx, len(tc.racers), func(ctx context.Context, i int) (net.Conn, error) {
					select {
					case <-time.After(tc.racers[i].after):
					case <-ctx.Done():
						return nil, fmt.Errorf("%d: %w", i, ctx.Err())
					}
					if tc.racers[i].err != nil {
						return nil, tc.racers[i].err
					}
					connected++
					return namedConn{name: i, closed: &closed}, nil
				})
				if took := time.Since(start); took != tc.after {
					t.Errorf("it took %v, not %v", took, tc.after)
				}
				switch {
				case tc.winner < 0 && err == nil, tc.winner >= 0 && (err != nil || c.(namedConn).name != tc.winner):
					t.Fatalf("%v, %v", c, err)
				case tc.winner < 0 && !errors.Is(err, failed) && !strings.HasPrefix(err.Error(), "0:"):
					t.Errorf("the error is not that of the first: %v", err)
				case tc.winner >= 0 && closed != connected-1:
					t.Errorf("%d connected, %d were closed", connected, closed)
				}
			})
		})
	}
}

func TestLateConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		c, err := race(t.Context(), 2, func(ctx context.Context, i int) (net.Conn, error) {
			time.Sleep([]time.Duration{time.Second, time.Second - attemptDelay}[i]) // both end at the same time, and ignore ctx
			return namedConn{name: i, closed: &closed}, nil
		})
		if err != nil || closed != 1 {
			t.Errorf("%v, %v; %d closed", c, err, closed)
		}
	})
}

func TestDialReturnsTheErrorsOfADialer(t *testing.T) {
	s := dnstest.NewServer(t)
	l := lookup{ctx: t.Context(), server: s.Addr()}
	_, err := dial(t.Context(), l.resolver(), "tcp", "none.test.:443")
	var op *net.OpError
	var dns *net.DNSError
	if !errors.As(err, &op) || op.Op != "dial" || !errors.As(err, &dns) || !dns.IsNotFound {
		t.Errorf("%#v", err)
	}
	if _, err := Dial(t.Context(), "tcp", "no port"); err == nil {
		t.Error("an address without a port is dialed")
	}
	if _, err := Dial(t.Context(), "unix", "/none"); err == nil {
		t.Error("no socket is connected to")
	}
}

func TestDialConnectsToANameAndToAnAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost"} {
		c, err := Dial(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
