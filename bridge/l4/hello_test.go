package l4_test

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// A fragmenter sends the first record, a ClientHello, in pieces.
type fragmenter struct {
	net.Conn
	cut  func(record []byte) [][]byte
	sent bool
}

func (f *fragmenter) Write(p []byte) (int, error) {
	if f.sent {
		return f.Conn.Write(p)
	}
	f.sent = true
	for _, piece := range f.cut(p) {
		if _, err := f.Conn.Write(piece); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// records splits a record into records of at most size bytes.
func records(record []byte, size int) [][]byte {
	var out [][]byte
	for body := record[5:]; len(body) > 0; {
		n := min(size, len(body))
		header := binary.BigEndian.AppendUint16([]byte{record[0], record[1], record[2]}, uint16(n))
		out = append(out, append(header, body[:n]...))
		body = body[n:]
	}
	return out
}

func TestFragmentedHelloIsRoutedByItsName(t *testing.T) {
	p := newPKI(t)
	wanted, other := listen(t, "tcp"), listen(t, "tcp")
	routes, err := route.New([]route.Rule[*l4.Target]{{Name: "a", Hosts: []string{"a.test"}, Value: to(group(plain(wanted)))}})
	if err != nil {
		t.Fatal(err)
	}
	g := serve(t, &l4.Table{TLS: p.listener(t, "a.test"), Routes: routes, Default: to(group(plain(other)))})
	for name, cut := range map[string]func([]byte) [][]byte{
		"segments of a byte": func(r []byte) (out [][]byte) {
			for i := range r {
				out = append(out, r[i:i+1])
			}
			return out
		},
		"records of some bytes": func(r []byte) [][]byte { return records(r, 7) },
		"two records with the name across them": func(r []byte) [][]byte {
			return records(r, strings.Index(string(r), "a.test")+3-5)
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := net.Dial("tcp", g.address)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			config := p.client("a.test")
			// Long protocol names make the hello many records long.
			config.NextProtos = []string{strings.Repeat("x", 200)}
			c := tls.Client(&fragmenter{Conn: raw, cut: cut}, config)
			handshakes := make(chan error, 1)
			go func() { handshakes <- c.Handshake() }()
			far := accept(t, wanted, nil)
			if err := <-handshakes; err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatal(err)
			}
			far.Want(t, "hello")
		})
	}
}
