package resolve

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

// A message is a response of n answers, each written by add, to a question
// about name.
func message(t testing.TB, name string, n int, add func(b *dnsmessage.Builder, name dnsmessage.Name, i int) error) []byte {
	t.Helper()
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: 7, Response: true})
	b.EnableCompression()
	of := dnsmessage.MustNewName(name)
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.StartQuestions())
	must(b.Question(dnsmessage.Question{Name: of, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}))
	must(b.StartAnswers())
	for i := range n {
		must(add(&b, of, i))
	}
	p, err := b.Finish()
	must(err)
	if len(p) > 1<<16-1 {
		t.Fatalf("%d bytes are too many for a message", len(p))
	}
	return p
}

func addA(b *dnsmessage.Builder, name dnsmessage.Name, i int) error {
	h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 60}
	return b.AResource(h, dnsmessage.AResource{A: [4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}})
}

// longName is the longest valid name, with as many labels as possible.
var longName = strings.Repeat("a.", 126)

// For any answer of a server, the length of the message bounds the memory and
// time to inspect it.
func TestTheCostOfADNSAnswerIsBoundedByItsLength(t *testing.T) {
	garbage := make([]byte, 1<<16-1)
	binary.BigEndian.PutUint16(garbage, 7)
	garbage[2], garbage[7] = 0x80, 0xff // a response that claims 255 answers and has none
	names := alloctest.Bound{CPU: 150 * time.Nanosecond,
		Reason: "the name of each record may be a pointer to one of 255 bytes; package net reads it likewise"}
	for _, c := range []struct {
		name    string
		message []byte
		bound   alloctest.Bound
	}{
		{"thousands of addresses", message(t, "up.test.", 4000, addA), alloctest.Bound{}},
		{"thousands of addresses of the longest name", message(t, longName, 4000, addA), names},
		{"large records", message(t, "up.test.", 15, func(b *dnsmessage.Builder, name dnsmessage.Name, i int) error {
			h := dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET}
			return b.TXTResource(h, dnsmessage.TXTResource{TXT: []string{strings.Repeat("x", 255), strings.Repeat("y", 255)}})
		}), alloctest.Bound{}},
		{"garbage", garbage, alloctest.Bound{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			const times = 10
			alloctest.WantCost(t, times*len(c.message), c.bound, func() {
				l := &lookup{}
				for range times {
					l.receive(c.message, 7)
				}
			})
		})
	}
}

// A pieceConn returns its input in pieces.
type pieceConn struct {
	net.Conn
	left []byte
	cut  int
}

func (c *pieceConn) Read(p []byte) (int, error) {
	n := copy(p[:min(len(p), c.cut)], c.left)
	c.left = c.left[n:]
	if n == 0 {
		return 0, net.ErrClosed
	}
	return n, nil
}

// With any fragmentation of TCP answers, and any number of them, at most one
// is kept.
func TestADNSStreamKeepsOneMessage(t *testing.T) {
	m := message(t, "up.test.", 4000, addA)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)
	var all []byte
	for range 4 {
		all = append(all, framed...)
	}
	for _, cut := range []int{1, 2, 1000, 1 << 20} {
		t.Run(fmt.Sprintf("%d bytes at a time", cut), func(t *testing.T) {
			p := make([]byte, 64<<10)
			alloctest.WantCost(t, len(all), alloctest.Bound{}, func() {
				c := &stream{Conn: &pieceConn{left: all, cut: cut}, wire: wire{lookup: &lookup{}, id: 7}}
				for {
					_, err := c.Read(p)
					if cap(c.got) > 2*(2+1<<16)+len(p) {
						t.Fatalf("%d bytes are kept", cap(c.got))
					}
					if err != nil {
						break
					}
				}
				if !c.lookup.hasTTL {
					t.Error("the resolver received nothing")
				}
			})
		})
	}
}

// A truncated answer, or any changed byte, never causes a panic.
func TestADamagedDNSAnswerIsHarmless(t *testing.T) {
	m := message(t, "up.test.", 5, addA)
	for at := range len(m) {
		(&lookup{}).receive(m[:at], 7)
		for _, value := range []byte{0, 1, 0x7f, 0xc0, 0xff, m[at] ^ 1} {
			damaged := append([]byte(nil), m...)
			damaged[at] = value
			(&lookup{}).receive(damaged, 7)
		}
	}
}

// A lookup keeps and checks only as many addresses of an answer as an upstream
// may have endpoints.
func TestAddressesOfAnAnswerAreBounded(t *testing.T) {
	looked := 0
	n := NewName(Query{Host: "up.test", Port: 443})
	n.routed = func(netip.Addr) bool { looked++; return true }
	addrs := make([]netip.Addr, 4000)
	for i := range addrs {
		addrs[i] = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
	}
	const record = 16 // minimum size of an answer
	alloctest.WantCost(t, record*len(addrs), alloctest.Bound{}, func() {
		looked = 0
		if kept := n.usable(addrs); len(kept) != MaxAddresses || looked != MaxAddresses {
			t.Errorf("%d addresses are kept, %d were checked", len(kept), looked)
		}
	})
}
