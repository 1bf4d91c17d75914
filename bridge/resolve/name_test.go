package resolve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve"
	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func host(name string, servers ...*dnstest.Server) *resolve.Name {
	q := resolve.Query{Host: name, Port: 443}
	for _, s := range servers {
		q.Servers = append(q.Servers, s.Addr())
	}
	return resolve.NewNameWith(q, everywhere)
}

func everywhere(netip.Addr) bool { return true }

// at formats addresses with their weights and roles.
func at(a resolve.Answer) string {
	var out []string
	for _, x := range a.Addresses {
		text := x.At.String()
		if x.Weight != 1 {
			text += fmt.Sprintf(" weight %d", x.Weight)
		}
		if x.Backup {
			text += " backup"
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func ask(t *testing.T, n *resolve.Name) resolve.Answer {
	t.Helper()
	a, err := n.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(n.Last().Addresses, a.Addresses) {
		t.Errorf("Last does not return the answer of Ask")
	}
	return a
}

func TestAHostHasAddressesOfBothFamilies(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Set("web.test", dnstest.A(60, "10.0.0.2"), dnstest.A(60, "10.0.0.1"), dnstest.A(30, "2001:db8::1"), dnstest.A(60, "10.0.0.1"))
	a := ask(t, host("web.test", s))
	if got := at(a); got != "10.0.0.1:443, 10.0.0.2:443, [2001:db8::1]:443" {
		t.Errorf("got %s", got)
	}
	if a.TTL != 30*time.Second || a.Time.IsZero() {
		t.Errorf("TTL %v, time %v", a.TTL, a.Time)
	}
	for _, x := range a.Addresses {
		if x.Name != "web.test" {
			t.Errorf("%v is called %q", x.At, x.Name)
		}
	}
}

func TestTheLowestTimeToLiveAppliesWithinBounds(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Set("never.test", dnstest.A(0, "10.0.0.1"))
	s.Set("forever.test", dnstest.A(1<<31-1, "10.0.0.1"))
	s.Set("negative.test", dnstest.A(1<<31, "10.0.0.1"))
	s.Set("alias.test", dnstest.CNAME(20, "other.test"))
	s.Set("other.test", dnstest.CNAME(90, "third.test"))
	s.Set("third.test", dnstest.A(300, "10.0.0.3"))
	for name, want := range map[string]time.Duration{
		"never.test": time.Second, "forever.test": time.Hour, "negative.test": time.Second, "alias.test": 20 * time.Second,
	} {
		if a := ask(t, host(name, s)); a.TTL != want {
			t.Errorf("%s: %v, want %v", name, a.TTL, want)
		}
	}
	if got := at(ask(t, host("alias.test", s))); got != "10.0.0.3:443" {
		t.Errorf("a chain of aliases leads to %s", got)
	}
}

func TestTruncatedAnswersAreRetriedOverTCP(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Truncate()
	var records []dnstest.Record
	for i := range 300 {
		records = append(records, dnstest.A(uint32(1000-i), fmt.Sprintf("10.0.%d.%d", i/250, i%250)))
	}
	s.Set("many.test", records...)
	a := ask(t, host("many.test", s))
	if len(a.Addresses) != resolve.MaxAddresses || a.TTL != 701*time.Second {
		t.Errorf("%d addresses for %v", len(a.Addresses), a.TTL)
	}
	if s.OverTCP() == 0 {
		t.Error("no query was sent over TCP")
	}
	slices.Reverse(records)
	s.Set("many.test", records...)
	if b := ask(t, host("many.test", s)); !slices.Equal(a.Addresses, b.Addresses) {
		t.Error("the kept addresses depend on their order")
	}
}

func TestServiceRecordsHavePrioritiesAndWeights(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Set("_pay._tcp.test",
		dnstest.SRV(600, 20, 7, 9443, "spare.test"),
		dnstest.SRV(600, 10, 30, 8443, "one.test"),
		dnstest.SRV(600, 10, 0, 8443, "Two.test"),
		dnstest.SRV(600, 10, 5, 8443, "gone.test"))
	s.Set("one.test", dnstest.A(60, "10.0.0.1"), dnstest.A(60, "10.0.0.2"))
	s.Set("two.test", dnstest.A(45, "10.0.0.3"))
	s.Set("spare.test", dnstest.A(60, "10.0.0.9"))
	s.Set("gone.test", dnstest.A(60, "10.0.0.8"))
	n := resolve.NewName(resolve.Query{SRV: "_pay._tcp.test", Servers: []netip.AddrPort{s.Addr()}})
	a := ask(t, n)
	want := "10.0.0.1:8443 weight 30, 10.0.0.2:8443 weight 30, 10.0.0.3:8443 weight 2, 10.0.0.8:8443 weight 10, 10.0.0.9:9443 weight 14 backup"
	if got := at(a); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if a.TTL != 45*time.Second {
		t.Errorf("TTL %v", a.TTL)
	}
	var names []string
	for _, x := range a.Addresses {
		names = append(names, x.Name)
	}
	if !slices.Equal(names, []string{"one.test", "one.test", "two.test", "gone.test", "spare.test"}) {
		t.Errorf("names %v", names)
	}

	// A target whose lookup fails keeps its addresses; the others are updated.
	s.Fail("gone.test", dnsmessage.RCodeServerFailure)
	s.Set("two.test", dnstest.A(45, "10.0.0.4"))
	a, err := n.Ask(t.Context())
	if err == nil {
		t.Error("the failure of one target is not reported")
	}
	if got := at(a); got != strings.Replace(want, "10.0.0.3:", "10.0.0.4:", 1) {
		t.Errorf("then %s", got)
	}
}

func TestAnUnavailableServiceHasNoAddress(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Set("_no._tcp.test", dnstest.SRV(60, 0, 0, 0, "."))
	n := resolve.NewName(resolve.Query{SRV: "_no._tcp.test", Servers: []netip.AddrPort{s.Addr()}})
	a, err := n.Ask(t.Context())
	if err == nil || len(a.Addresses) != 0 {
		t.Errorf("%v, %v", a, err)
	}
}

func TestAFailureKeepsTheLastAnswer(t *testing.T) {
	s := dnstest.NewServer(t)
	header := func(counts ...byte) []byte { return append([]byte{0, 1}, counts...) }
	for name, fail := range map[string]func(name string){
		"NXDOMAIN":                             func(name string) { s.Set(name) },
		"SERVFAIL":                             func(name string) { s.Fail(name, dnsmessage.RCodeServerFailure) },
		"REFUSED":                              func(name string) { s.Fail(name, dnsmessage.RCodeRefused) },
		"no data":                              func(name string) { s.Set(name, dnstest.SRV(1, 1, 1, 1, "other.test")) },
		"only addresses that cannot be dialed": func(name string) { s.Set(name, dnstest.A(1, "0.0.0.0"), dnstest.A(1, "::"), dnstest.A(1, "224.0.0.1")) },
		"only a header":                        func(name string) { s.Garble(name, nil) },
		"no question":                          func(name string) { s.Garble(name, make([]byte, 8)) },
		"missing records": func(name string) {
			s.Garble(name, append(header(0xff, 0xff, 0, 0, 0, 0), bytes.Repeat([]byte{0xc0, 0x0c}, 300)...))
		},
	} {
		t.Run(name, func(t *testing.T) {
			name := strings.ReplaceAll(strings.ToLower(name), " ", "-") + ".test"
			n := host(name, s)
			fail(name)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond) // the resolver ignores garbage and keeps waiting
			defer cancel()
			if a, err := n.Ask(ctx); err == nil || len(a.Addresses) > 0 || !a.Time.IsZero() {
				t.Fatalf("%v, %v before there was an answer", a, err)
			}
			s.Set(name, dnstest.A(60, "10.0.0.1"))
			before := ask(t, n)
			fail(name)
			ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			after, err := n.Ask(ctx)
			var failure *net.DNSError
			if !errors.As(err, &failure) {
				t.Errorf("error %v", err)
			}
			if at(after) != at(before) || !after.Time.Equal(before.Time) {
				t.Errorf("%v became %v", before, after)
			}
			s.Set(name, dnstest.A(60, "10.0.0.2"))
			if got := at(ask(t, n)); got != "10.0.0.2:443" {
				t.Errorf("then %s", got)
			}
		})
	}
}

func TestAFamilyWithoutAnAnswerKeepsItsAddresses(t *testing.T) {
	s := dnstest.NewServer(t)
	broken := func() { s.FailType("both.test", dnsmessage.TypeAAAA, dnsmessage.RCodeServerFailure) }
	n := host("both.test", s)
	s.Set("both.test", dnstest.A(60, "10.0.0.1"), dnstest.A(60, "2001:db8::1"))
	broken()
	if got := at(ask(t, n)); got != "10.0.0.1:443" { // servers that support only A records are common
		t.Errorf("first %s", got)
	}
	s.Set("both.test", dnstest.A(60, "10.0.0.1"), dnstest.A(60, "2001:db8::1"))
	if got := at(ask(t, n)); got != "10.0.0.1:443, [2001:db8::1]:443" {
		t.Errorf("then %s", got)
	}
	s.Set("both.test", dnstest.A(60, "10.0.0.2"), dnstest.A(60, "2001:db8::1"))
	broken()
	a, err := n.Ask(t.Context())
	if err == nil || at(a) != "10.0.0.2:443, [2001:db8::1]:443" {
		t.Errorf("without a response to the AAAA query: %s, %v", at(a), err)
	}
	s.Set("both.test", dnstest.A(60, "10.0.0.2"))
	if got := at(ask(t, n)); got != "10.0.0.2:443" {
		t.Errorf("with an empty AAAA answer: %s", got)
	}
}

func TestTheNextServerIsQueriedAfterATimeout(t *testing.T) {
	dead, failing, good := dnstest.NewServer(t), dnstest.NewServer(t), dnstest.NewServer(t)
	failing.Fail("web.test", dnsmessage.RCodeServerFailure)
	good.Set("web.test", dnstest.A(60, "10.0.0.1"))
	n := host("web.test", failing, good)
	if got := at(ask(t, n)); got != "10.0.0.1:443" {
		t.Errorf("got %s", got)
	}
	asked := failing.Asked("web.test", dnsmessage.TypeA)
	ask(t, n)
	if failing.Asked("web.test", dnsmessage.TypeA) != asked {
		t.Error("the server that timed out is queried first again")
	}
	// NXDOMAIN is an answer.
	failing.Set("web.test")
	if a, err := host("web.test", failing, good).Ask(t.Context()); err == nil {
		t.Errorf("got %v", a)
	}
	dead.Ignore("web.test")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := host("web.test", dead).Ask(ctx)
		done <- err
	}()
	dead.Await(t, "web.test", dnsmessage.TypeA, 1)
	cancel()
	if err := <-done; err == nil {
		t.Error("the lookup succeeded although no server responds")
	}
}

func TestAnAddressOfTheHostsFileHasNoTimeToLive(t *testing.T) {
	a := ask(t, host("localhost"))
	if !slices.ContainsFunc(a.Addresses, func(x resolve.Address) bool { return x.At.Addr().IsLoopback() }) || a.TTL != 0 {
		t.Errorf("got %s for %v", at(a), a.TTL)
	}
}

func TestAddressesWithoutARouteAreLeftOut(t *testing.T) {
	s := dnstest.NewServer(t)
	s.Set("both.test", dnstest.A(60, "10.0.0.1"), dnstest.A(60, "2001:db8::1"))
	s.Set("six.test", dnstest.A(60, "2001:db8::1"))
	for name, want := range map[string]string{"both.test": "10.0.0.1:443", "six.test": "[2001:db8::1]:443"} {
		n := resolve.NewNameWith(resolve.Query{Host: name, Port: 443, Servers: []netip.AddrPort{s.Addr()}}, netip.Addr.Is4)
		if got := at(ask(t, n)); got != want {
			t.Errorf("%s without IPv6: %s, want %s", name, got, want)
		}
	}
	if !resolve.IsRouted(netip.MustParseAddr("127.0.0.1")) || resolve.IsRouted(netip.MustParseAddr("fe80::1")) {
		t.Error("loopback counts as unrouted, or an address without its zone as routed")
	}
}

func TestEqualQueries(t *testing.T) {
	q := resolve.Query{Host: "a", Port: 1, Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}}
	same := q
	same.Servers = slices.Clone(q.Servers)
	if !q.Equal(same) || q.String() != "a" {
		t.Error("a copy is not equal")
	}
	for _, other := range []resolve.Query{{Host: "b", Port: 1, Servers: q.Servers}, {Host: "a", Port: 2, Servers: q.Servers}, {Host: "a", Port: 1}, {SRV: "a"}} {
		if q.Equal(other) {
			t.Errorf("%v equals %v", q, other)
		}
	}
}
