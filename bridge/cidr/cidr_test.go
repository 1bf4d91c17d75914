package cidr_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
)

func parse(t testing.TB, texts ...string) *cidr.Set {
	t.Helper()
	s, faults := cidr.Parse(texts)
	if faults != nil {
		t.Fatal(faults)
	}
	return s
}

func TestSetContainsTheAddressesOfItsPrefixes(t *testing.T) {
	s := parse(t, "10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "192.0.2.128/25", "2001:db8::/32", "::ffff:198.51.100.1", "0.0.0.0/32", "fe80::/10")
	for addr, want := range map[string]bool{
		"10.0.0.0": true, "10.1.2.3": true, "10.255.255.255": true, "11.0.0.0": false, "9.255.255.255": false,
		"192.0.2.0": false, "192.0.2.1": true, "192.0.2.2": false, "192.0.2.127": false, "192.0.2.128": true, "192.0.2.255": true, "192.0.3.0": false,
		"::ffff:10.1.2.3": true, "::ffff:11.1.2.3": false, "198.51.100.1": true, "::ffff:198.51.100.1": true,
		"2001:db8::1": true, "2001:db8:ffff::": true, "2001:db9::": false, "::a00:1": false, "0.0.0.0": true, "::": false, "255.255.255.255": false,
		"fe80::1%eth0": true, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": false,
	} {
		if got := s.Has(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if s.Has(netip.Addr{}) || (*cidr.Set)(nil).Has(netip.MustParseAddr("10.0.0.1")) || parse(t).Has(netip.MustParseAddr("10.0.0.1")) {
		t.Error("the zero Addr is in a set, or a nil set has an address")
	}
	for text, want := range map[string]bool{"0.0.0.0/0": true, "::/0": true, "0.0.0.0/1": false, "10.0.0.0/8": false} {
		if got := parse(t, text).CoversAll(); got != want {
			t.Errorf("%s covers a whole address family: %v", text, got)
		}
	}
}

func TestInvalidTextsAreReported(t *testing.T) {
	for _, text := range []string{"", "localhost", "10.0.0.1/8", "10.0.0.0/33", "::ffff:10.0.0.0/104", "fe80::1%lo", "fe80::%lo/10", "10.0.0.0/8 ", "10.0.0", "unix", "10.0.0.0/08"} {
		for kind, faults := range map[string][]cidr.Fault{
			"set":   second(cidr.Parse([]string{"10.0.0.0/8", text})),
			"peers": second(cidr.ParsePeers([]string{"10.0.0.0/8", text})),
		} {
			if len(faults) != 1 || faults[0].Index != 1 || !strings.Contains(faults[0].Reason, "must be an IP address") {
				t.Errorf("%s: %q: %v", kind, text, faults)
			}
		}
	}
	s, faults := cidr.Parse([]string{cidr.FromUnix, "10.0.0.0/8"})
	if len(faults) != 1 || !s.Has(netip.MustParseAddr("10.0.0.1")) {
		t.Errorf("an address after a fault: %v", faults)
	}
}

func second[A, B any](_ A, b B) B { return b }

func TestPeers(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	unix := &net.UnixAddr{Net: "unix"}
	p, _ := cidr.ParsePeers([]string{"10.0.0.0/8", "fe80::/10"})
	if !p.Has(tcp("10.1.2.3:1")) || !p.Has(tcp("[::ffff:10.1.2.3]:1")) || !p.Has(tcp("[fe80::1%lo]:1")) || p.Has(tcp("11.0.0.1:1")) {
		t.Error("addresses")
	}
	if p.Has(unix) || p.Has(nil) || p.Has(&net.TCPAddr{}) || (*cidr.Peers)(nil).Has(tcp("10.1.2.3:1")) || (*cidr.Peers)(nil).HasAddress(netip.MustParseAddr("10.1.2.3")) {
		t.Error("the set has a client that was not named")
	}
	local, faults := cidr.ParsePeers([]string{cidr.FromUnix})
	if faults != nil || !local.Has(unix) || local.Has(tcp("127.0.0.1:1")) {
		t.Errorf("unix: %v", faults)
	}
}

func TestAccess(t *testing.T) {
	in, out := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	inside, host := parse(t, "10.0.0.0/8"), parse(t, "10.0.0.1")
	for name, c := range map[string]struct {
		access                   *cidr.Access
		in, out, admitsNoAddress bool
	}{
		"no access rules":                        {nil, true, true, true},
		"no access list":                         {&cidr.Access{}, true, true, true},
		"allowed":                                {&cidr.Access{Allow: inside}, true, false, true},
		"denied":                                 {&cidr.Access{Deny: inside}, false, true, true},
		"a part of the allowed prefix is denied": {&cidr.Access{Allow: inside, Deny: host}, false, false, true},
		"no client is allowed":                   {&cidr.Access{Allow: parse(t)}, false, false, true},
	} {
		if a := c.access; a.Serves(in) != c.in || a.Serves(out) != c.out || a.Serves(netip.Addr{}) != c.admitsNoAddress {
			t.Errorf("%s: inside %v, outside %v, without an address %v", name, a.Serves(in), a.Serves(out), a.Serves(netip.Addr{}))
		}
	}
}

// somePrefixes returns random prefixes, many of them nested.
func somePrefixes(rnd *rand.Rand, n int) (texts []string, all []netip.Prefix) {
	for range n {
		a := someAddr(rnd)
		p := netip.PrefixFrom(a, rnd.IntN(a.BitLen()+1)).Masked()
		texts, all = append(texts, p.String()), append(all, p)
	}
	return texts, all
}

// someAddr returns one of a few addresses, so that they often match.
func someAddr(rnd *rand.Rand) netip.Addr {
	if rnd.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{byte(rnd.IntN(4)) << 6, byte(rnd.IntN(2)), 0, byte(rnd.IntN(256))})
	}
	var b [16]byte
	b[0], b[1], b[15] = 0x20, byte(rnd.IntN(4)), byte(rnd.IntN(256))
	return netip.AddrFrom16(b)
}

func TestSetAgreesWithALinearSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 500 {
		texts, all := somePrefixes(rnd, rnd.IntN(12))
		s := parse(t, texts...)
		for range 100 {
			a, want := someAddr(rnd), false
			for _, p := range all {
				want = want || p.Contains(a)
			}
			if got := s.Has(a); got != want {
				t.Fatalf("%s of %v: %v", a, texts, got)
			}
			if want {
				found++
			}
		}
	}
	if found < 5000 || found > 45000 {
		t.Errorf("%d of 50000 were in their set: the test shows little", found)
	}
}

func manyPrefixes(n int) []string {
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprintf("%d.%d.%d.0/24", 1+i%200, i/200%256, i%7)
		if i%3 == 0 {
			texts[i] = fmt.Sprintf("2001:%x:%x::/48", i%65536, i/7%65536)
		}
	}
	return texts
}

func TestHasAllocatesNothing(t *testing.T) {
	s := parse(t, manyPrefixes(10000)...)
	for _, a := range []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:3:4::1"), netip.MustParseAddr("fe80::1%lo")} {
		alloctest.Want(t, a.String(), 0, func() { s.Has(a) })
	}
}

func BenchmarkHas(b *testing.B) {
	for _, n := range []int{1, 10, 10000} {
		s := parse(b, manyPrefixes(n)...)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			addrs := []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:3:4::1"), netip.MustParseAddr("203.0.113.9")}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				s.Has(addrs[i%len(addrs)])
			}
		})
	}
}
