// Package dnstest serves DNS on loopback for tests.
//
// A Server belongs to the test that made it and ends with that test.
package dnstest

import (
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A Server answers over UDP and TCP for the configured names only. All methods
// may be called concurrently.
type Server struct {
	udp net.PacketConn
	tcp net.Listener

	mu       sync.Mutex
	records  map[string][]dnsmessage.Resource // by name, in lower case with a trailing dot
	codes    map[string]dnsmessage.RCode
	silent   map[question]bool
	refused  map[question]dnsmessage.RCode
	garbage  map[string][]byte
	truncate bool
	asked    map[question]int
	overTCP  int
	conns    map[net.Conn]bool
	wake     chan struct{} // closed when a question arrives
}

type question struct {
	name string
	kind dnsmessage.Type
}

// NewServer returns a Server that serves until the test ends.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		records: make(map[string][]dnsmessage.Resource), codes: make(map[string]dnsmessage.RCode), silent: make(map[question]bool),
		refused: make(map[question]dnsmessage.RCode), garbage: make(map[string][]byte), asked: make(map[question]int),
		conns: make(map[net.Conn]bool), wake: make(chan struct{}),
	}
	// Use the same port for both; the kernel chooses it for one of them.
	for try := 0; s.udp == nil; try++ {
		var err error
		if s.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if s.udp, err = net.ListenPacket("udp", s.tcp.Addr().String()); err != nil {
			s.tcp.Close()
			if try == 10 {
				t.Fatal(err)
			}
		}
	}
	var serving sync.WaitGroup
	serving.Go(s.serveUDP)
	serving.Go(func() { s.serveTCP(&serving) })
	t.Cleanup(func() {
		s.udp.Close()
		s.tcp.Close()
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		serving.Wait()
	})
	return s
}

// Addr returns the server's address.
func (s *Server) Addr() netip.AddrPort { return netip.MustParseAddrPort(s.tcp.Addr().String()) }

// A Record is a DNS record of a name.
type Record struct {
	ttl  uint32
	body dnsmessage.ResourceBody
}

// A returns an address record of either family.
func A(ttl uint32, address string) Record {
	a := netip.MustParseAddr(address)
	if a.Is4() {
		return Record{ttl, &dnsmessage.AResource{A: a.As4()}}
	}
	return Record{ttl, &dnsmessage.AAAAResource{AAAA: a.As16()}}
}

// CNAME returns an alias record.
func CNAME(ttl uint32, name string) Record {
	return Record{ttl, &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(rooted(name))}}
}

// SRV returns a service record.
func SRV(ttl uint32, priority, weight, port uint16, target string) Record {
	return Record{ttl, &dnsmessage.SRVResource{Priority: priority, Weight: weight, Port: port, Target: dnsmessage.MustNewName(rooted(target))}}
}

func rooted(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) + "." }

// Set replaces all records of the name and resets the effects of Fail, Ignore
// and Garble. Without records the name does not exist.
func (s *Server) Set(name string, records ...Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name = rooted(name)
	delete(s.codes, name)
	delete(s.garbage, name)
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV} {
		delete(s.silent, question{name, kind})
		delete(s.refused, question{name, kind})
	}
	delete(s.records, name)
	for _, r := range records {
		s.records[name] = append(s.records[name], dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: typeOf(r.body), Class: dnsmessage.ClassINET, TTL: r.ttl},
			Body:   r.body,
		})
	}
}

func typeOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch body.(type) {
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	case *dnsmessage.AAAAResource:
		return dnsmessage.TypeAAAA
	case *dnsmessage.CNAMEResource:
		return dnsmessage.TypeCNAME
	}
	return dnsmessage.TypeSRV
}

// Fail makes the server answer questions about the name with a code, such as
// SERVFAIL, until Set.
func (s *Server) Fail(name string, code dnsmessage.RCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[rooted(name)] = code
}

// FailType is Fail for one type of record.
func (s *Server) FailType(name string, kind dnsmessage.Type, code dnsmessage.RCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[question{rooted(name), kind}] = code
}

// Ignore makes the server ignore questions about the name, until Set.
func (s *Server) Ignore(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeSRV} {
		s.silent[question{rooted(name), kind}] = true
	}
}

// Garble makes the server answer questions about the name with rest after the
// id and flags, until Set.
func (s *Server) Garble(name string, rest []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.garbage[rooted(name)] = rest
}

// Truncate truncates every answer over UDP, so that the client asks again over
// TCP.
func (s *Server) Truncate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.truncate = true
}

// Asked returns how often the name was queried for records of the type.
func (s *Server) Asked(name string, kind dnsmessage.Type) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[question{rooted(name), kind}]
}

// OverTCP returns the number of questions over TCP.
func (s *Server) OverTCP() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overTCP
}

// Await returns when the name was queried the given number of times for
// records of the type.
func (s *Server) Await(t testing.TB, name string, kind dnsmessage.Type, times int) {
	t.Helper()
	for {
		s.mu.Lock()
		n, wake := s.asked[question{rooted(name), kind}], s.wake
		s.mu.Unlock()
		if n >= times {
			return
		}
		select {
		case <-wake:
		case <-t.Context().Done():
			t.Fatalf("%s was queried %d times, not %d", name, n, times)
		}
	}
}

func (s *Server) serveUDP() {
	buf := make([]byte, 64<<10)
	for {
		n, from, err := s.udp.ReadFrom(buf)
		if err != nil {
			return
		}
		if out := s.answer(buf[:n], false); out != nil {
			s.udp.WriteTo(out, from)
		}
	}
}

func (s *Server) serveTCP(serving *sync.WaitGroup) {
	for {
		c, err := s.tcp.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		serving.Go(func() {
			defer func() {
				c.Close()
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			}()
			for {
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				message := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, message); err != nil {
					return
				}
				if out := s.answer(message, true); out != nil {
					c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
				}
			}
		})
	}
}

// answer returns the message to send; nil: no answer.
func (s *Server) answer(message []byte, tcp bool) []byte {
	var p dnsmessage.Parser
	header, err := p.Start(message)
	if err != nil {
		return nil
	}
	asked, err := p.Question()
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := question{rooted(asked.Name.String()), asked.Type}
	s.asked[q]++
	close(s.wake)
	s.wake = make(chan struct{})
	if tcp {
		s.overTCP++
	}
	if s.silent[q] {
		return nil
	}
	if rest, ok := s.garbage[q.name]; ok {
		out := binary.BigEndian.AppendUint16(nil, header.ID)
		return append(append(out, 0x84, 0), rest...)
	}
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{asked},
	}
	name := q.name
	if _, ok := s.records[name]; !ok {
		out.RCode = dnsmessage.RCodeNameError
	}
	for range 16 {
		next := ""
		for _, r := range s.records[name] {
			if r.Header.Type == asked.Type || r.Header.Type == dnsmessage.TypeCNAME {
				out.Answers = append(out.Answers, r)
			}
			if c, ok := r.Body.(*dnsmessage.CNAMEResource); ok {
				next = c.CNAME.String()
			}
		}
		if name = next; name == "" {
			break
		}
	}
	if code, ok := s.codes[q.name]; ok {
		out.RCode, out.Answers = code, nil
	}
	if code, ok := s.refused[q]; ok {
		out.RCode, out.Answers = code, nil
	}
	if s.truncate && !tcp {
		out.Truncated, out.Answers = true, nil
	}
	packed, err := out.Pack()
	if err != nil {
		panic(err)
	}
	return packed
}
