package connections

import (
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/live"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

type entry struct{ n uint64 }

func (e entry) ID() uint64                  { return e.n }
func (e entry) Describe(c *live.Connection) { *c = live.Connection{ID: e.n} }
func (e entry) Close(time.Duration)         {}

// of returns the connections with some numbers, in any order.
func of(clients, upstreams []uint64) *Connections {
	each := func(numbers []uint64) func(func(live.Entry)) {
		return func(f func(live.Entry)) {
			for _, n := range numbers {
				f(entry{n})
			}
		}
	}
	return New(Options{Clients: each(clients), Upstreams: each(upstreams), Logger: hclog.NewNullLogger()})
}

func TestConnectionsAreReadInBatches(t *testing.T) {
	for _, n := range []int{0, 1, firstBatch - 1, firstBatch, firstBatch + 1, 2 * firstBatch, 2*firstBatch + 1, 5 * firstBatch, 30 * firstBatch} {
		numbers := make([]uint64, n)
		for i := range numbers {
			numbers[i] = uint64(3*i + 1)
		}
		want := slices.Clone(numbers)
		for name, order := range map[string]func(){
			"ascending": func() {}, "descending": func() { slices.Reverse(numbers) },
			"random": func() { rand.Shuffle(n, func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] }) },
		} {
			order()
			c := of(numbers[:n/3], numbers[n/3:])
			for _, after := range []uint64{0, 1, uint64(n), uint64(3 * n)} {
				var got []uint64
				if err := c.EachConnection(nil, after, func(number uint64, m *adminv1.Connection) bool {
					got = append(got, number)
					return true
				}); err != nil {
					t.Fatal(err)
				}
				first, _ := slices.BinarySearch(want, after+1)
				if !slices.Equal(got, want[first:]) {
					t.Errorf("%d connections, %s, after %d: %d listed, want %d", n, name, after, len(got), n-first)
				}
			}
		}
	}
}

// A client that connects faster than a close proceeds must not keep it from ending.
func TestConnectionsThatBeginMeanwhileAreLeftOut(t *testing.T) {
	last := uint64(firstBatch)
	c := New(Options{Upstreams: func(func(live.Entry)) {}, Logger: hclog.NewNullLogger(), Clients: func(f func(live.Entry)) {
		for n := uint64(1); n <= last; n++ {
			f(entry{n})
		}
		last += 10 * last
	}})
	if n, err := c.CloseConnections(nil, 0); n != firstBatch || err != nil {
		t.Errorf("%d closed, %v", n, err)
	}
}

// A panic in either goroutine must reach the caller, which recovers from it.
func TestAPanicWhileDescribingIsTheCallers(t *testing.T) {
	for _, broken := range []uint64{2, 190} {
		func() {
			defer func() {
				if p := recover(); p != broken {
					t.Errorf("connection %d: recovered from %v", broken, p)
				}
			}()
			c := New(Options{Upstreams: func(func(live.Entry)) {}, Clients: func(f func(live.Entry)) {
				for n := range uint64(200) {
					f(panicking{entry{n + 1}, broken})
				}
			}})
			_ = c.EachConnection(nil, 0, func(uint64, *adminv1.Connection) bool { return true })
		}()
	}
}

type panicking struct {
	entry
	at uint64
}

func (p panicking) Describe(c *live.Connection) {
	if p.entry.Describe(c); p.n == p.at {
		panic(p.n)
	}
}

func TestAddressesAreWrittenAsTheirOwnTypesDo(t *testing.T) {
	names := newNames()
	for _, a := range []net.Addr{
		&net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 80}, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3).To4(), Port: 80}, &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 81},
		&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 443}, &net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: "eth0"},
		&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 1, Zone: "eth1"}, &net.TCPAddr{Port: 7}, &net.UDPAddr{IP: net.IPv4(1, 2, 3, 4), Port: 5},
	} {
		for range 2 {
			if got, local := address(a), names.local(a); got != a.String() || local != a.String() {
				t.Errorf("%q and %q, want %q", got, local, a)
			}
		}
	}
	if got := names.local(&net.UnixAddr{Name: "/a\n", Net: "unix"}); got != `unix:/a\n` {
		t.Errorf("%q", got)
	}
	if address(nil) != "" || names.local(nil) != "" {
		t.Error("the text of a missing address")
	}
}
