package resolve

import (
	"net"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func packed(t testing.TB, change func(*dnsmessage.Message)) []byte {
	t.Helper()
	name := dnsmessage.MustNewName("web.test.")
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 30},
			Body:   &dnsmessage.AResource{A: [4]byte{10, 0, 0, 1}},
		}},
	}
	change(&m)
	out, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOnlyResponsesToTheQueryAreParsed(t *testing.T) {
	for what, change := range map[string]func(*dnsmessage.Message){
		"of another query":   func(m *dnsmessage.Message) { m.ID = 8 },
		"a query":            func(m *dnsmessage.Message) { m.Response = false },
		"cut short":          func(m *dnsmessage.Message) { m.Truncated = true },
		"without a question": func(m *dnsmessage.Message) { m.Questions = nil },
	} {
		if r, ok := readResponse(packed(t, change), 7); ok {
			t.Errorf("%s: %+v", what, r)
		}
	}
	r, ok := readResponse(packed(t, func(*dnsmessage.Message) {}), 7)
	if want := (response{name: "web.test.", kind: dnsmessage.TypeA, final: true, addresses: true, ttl: 30 * time.Second, hasTTL: true}); !ok || r != want {
		t.Errorf("%+v", r)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add(packed(f, func(*dnsmessage.Message) {}))
	f.Add(packed(f, func(m *dnsmessage.Message) {
		m.Answers = append(m.Answers, m.Answers...)
		m.RCode = dnsmessage.RCodeNameError
	}))
	f.Add([]byte{0, 7, 0x84})
	f.Fuzz(func(t *testing.T, message []byte) {
		r, ok := readResponse(message, 7)
		if !ok && r != (response{}) {
			t.Errorf("%+v from bytes that are not a response", r)
		}
		if r.ttl < 0 || !r.hasTTL && (r.ttl != 0 || r.addresses) {
			t.Errorf("%+v", r)
		}
		// Read the message from a stream too, in small parts and with a second message
		// behind it.
		if len(message) > 1<<16-1 {
			return
		}
		l := &lookup{ctx: t.Context()}
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			framed := append([]byte{byte(len(message) >> 8), byte(len(message))}, message...)
			theirs.Write(append(framed, framed...))
			theirs.Close()
		}()
		c := &stream{Conn: ours, wire: wire{lookup: l, stop: func() bool { return true }, id: 7}}
		for buf := make([]byte, 7); ; {
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
		if got := l.answered != nil; got != ok || len(c.got) != 0 {
			t.Errorf("received %v, %d bytes are left; want %v", got, len(c.got), ok)
		}
	})
}
