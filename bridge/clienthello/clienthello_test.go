package clienthello

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

var errSeen = errors.New("seen")

// hello returns the ClientHello that crypto/tls sends, in its records.
func hello(t testing.TB, config *tls.Config) []byte {
	t.Helper()
	var sent capture
	if err := tls.Client(&sent, config).Handshake(); err == nil {
		t.Fatal("there was a handshake")
	}
	return sent.Bytes()
}

// A capture is a connection that records writes and has nothing to read.
type capture struct{ bytes.Buffer }

func (*capture) Read([]byte) (int, error)         { return 0, io.EOF }
func (*capture) Close() error                     { return nil }
func (*capture) LocalAddr() net.Addr              { return nil }
func (*capture) RemoteAddr() net.Addr             { return nil }
func (*capture) SetDeadline(time.Time) error      { return nil }
func (*capture) SetReadDeadline(time.Time) error  { return nil }
func (*capture) SetWriteDeadline(time.Time) error { return nil }

// records splits a handshake message into records of a size.
func records(message []byte, size int) []byte {
	var out []byte
	for len(message) > 0 {
		n := min(size, len(message))
		out = append(out, typeHandshake, 3, 1, byte(n>>8), byte(n))
		out = append(out, message[:n]...)
		message = message[n:]
	}
	return out
}

// scan feeds a stream in pieces of a size, and returns how many bytes it fed.
func scan(stream []byte, size int) (Hello, int, error) {
	var s Scanner
	for fed := 0; fed < len(stream); {
		n := min(size, len(stream)-fed)
		whole, err := s.Feed(stream[fed : fed+n])
		fed += n
		if err != nil {
			return Hello{}, fed, err
		}
		if whole {
			h, err := s.Hello()
			return h, fed, err
		}
	}
	return Hello{}, len(stream), io.ErrUnexpectedEOF
}

func TestHelloIsFoundInPiecesOfAnySize(t *testing.T) {
	config := func(protocols ...string) *tls.Config {
		return &tls.Config{ServerName: "pay.example.com", NextProtos: protocols}
	}
	long := make([]string, 100)
	for i := range long {
		long[i] = strings.Repeat("p", 200)
	}
	for name, sent := range map[string][]byte{
		"with a post-quantum share": hello(t, config()),
		"of more than one record":   hello(t, config(long...)),
		"of TLS 1.2":                hello(t, &tls.Config{ServerName: "pay.example.com", MaxVersion: tls.VersionTLS12}),
	} {
		t.Run(name, func(t *testing.T) {
			message := message(sent)
			for _, record := range []int{1, 2, 5, 100, 1 << 14} {
				stream := records(message, record)
				if len(stream) > MaxStream {
					continue
				}
				for _, piece := range []int{1, 3, 1000, 1 << 20} {
					h, fed, err := scan(stream, piece)
					if err != nil || h.ServerName != "pay.example.com" || fed != len(stream) {
						t.Fatalf("records of %d in pieces of %d: %+v after %d of %d bytes, %v", record, piece, h, fed, len(stream), err)
					}
				}
			}
		})
	}
}

// message extracts the handshake message from its records.
func message(stream []byte) (m []byte) {
	for len(stream) > 0 {
		n := recordHeader + int(stream[3])<<8 + int(stream[4])
		m = append(m, stream[recordHeader:n]...)
		stream = stream[n:]
	}
	return m
}

func TestWithoutAServerName(t *testing.T) {
	h, _, err := scan(hello(t, &tls.Config{InsecureSkipVerify: true}), 1000)
	if err != nil || h.ServerName != "" {
		t.Errorf("%+v, %v", h, err)
	}
	// TLS 1.2 allows a ClientHello without extensions.
	bare := append([]byte{typeClientHello, 0, 0, 2 + 32 + 1 + 4 + 2, 3, 3}, make([]byte, 32)...)
	bare = append(bare, 0, 0, 2, 0x13, 0x01, 1, 0)
	if h, _, err := scan(records(bare, 100), 7); err != nil || h.ServerName != "" {
		t.Errorf("without extensions: %+v, %v", h, err)
	}
}

func TestOtherProtocolsAreRejectedAtOnce(t *testing.T) {
	good := message(hello(t, &tls.Config{ServerName: "a.example"}))
	huge := append([]byte{typeClientHello, 1, 0, 1}, make([]byte, 100)...)
	other := bytes.Clone(good)
	other[0] = 2
	for name, c := range map[string]struct {
		stream []byte
		want   error
		most   int // maximum number of bytes until the error
	}{
		"HTTP":                  {[]byte("GET / HTTP/1.1\r\n\r\n"), ErrNotTLS, 1},
		"SSL 2.0":               {[]byte{0x80, 0x2e, 1, 0, 2}, ErrNotTLS, 1},
		"an alert":              {[]byte{21, 3, 1, 0, 2, 1, 0}, ErrNotTLS, 1},
		"another major version": {[]byte{22, 2, 1, 0, 5}, ErrNotTLS, 2},
		"an empty record":       {[]byte{22, 3, 1, 0, 0}, ErrMalformed, 5},
		"a record too long":     {[]byte{22, 3, 1, 0x40, 1}, ErrMalformed, 5},
		"another message":       {records(other, 100), ErrMalformed, 6},
		"a message too long":    {records(huge, 100), ErrMalformed, 9},
		"an alert between two records of the hello": {append(records(good[:50], 50), 21, 3, 1, 0, 2, 1, 0), ErrMalformed, 56},
		"more data in the last record":              {records(append(bytes.Clone(good), 0), 1<<14), ErrMalformed, 1 << 20},
		"a stream of record headers only":           {records(bytes.Repeat(good[:1], 1<<16), 1), ErrMalformed, MaxStream + 1},
		"a length that disagrees with the data":     {records(append([]byte{1, 0, 0, 3}, 3, 3, 0), 100), ErrMalformed, 1 << 20},
		"a name list that is too short":             {records(with(server(0, "a.example")[:6]), 1000), ErrMalformed, 1 << 20},
		"no name in the list":                       {records(with([]byte{0, 0}), 1000), ErrMalformed, 1 << 20},
		"two names":                                 {records(with(server(0, "a.example", "b.example")), 1000), ErrMalformed, 1 << 20},
		"a trailing dot":                            {records(with(server(0, "a.example.")), 1000), ErrTrailingDot, 1 << 20},
		"the extension twice":                       {records(with(server(0, "a.example"), server(0, "b.example")), 1000), ErrMalformed, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			h, fed, err := scan(c.stream, 1)
			if !errors.Is(err, c.want) || fed > c.most {
				t.Errorf("%+v, %v after %d bytes; want %v after at most %d", h, err, fed, c.want, c.most)
			}
		})
	}
	if h, _, err := scan(records(with(server(0, "a.example")), 10), 1); err != nil || h.ServerName != "a.example" {
		t.Errorf("the unchanged message: %+v, %v", h, err)
	}
	if h, _, err := scan(records(with(server(1, "a.example")), 10), 1); err != nil || h.ServerName != "" {
		t.Errorf("a name of another kind: %+v, %v", h, err)
	}
}

// server returns the data of a server_name extension.
func server(kind byte, names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, kind, byte(len(n)>>8), byte(len(n)))
		list = append(list, n...)
	}
	return append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)
}

// with returns a ClientHello with server_name extensions of the given data.
func with(serverNames ...[]byte) []byte {
	var extensions []byte
	for _, data := range serverNames {
		extensions = append(extensions, 0, 0, byte(len(data)>>8), byte(len(data)))
		extensions = append(extensions, data...)
	}
	m := append([]byte{3, 3}, make([]byte, 32)...)
	m = append(m, 0, 0, 2, 0x13, 0x01, 1, 0, byte(len(extensions)>>8), byte(len(extensions)))
	m = append(m, extensions...)
	return append([]byte{typeClientHello, 0, byte(len(m) >> 8), byte(len(m))}, m...)
}

// A stream that arrives byte by byte is scanned in linear time.
func TestScanningIsLinear(t *testing.T) {
	stream := records(append([]byte{typeClientHello, 0, 0xff, 0xff}, make([]byte, 20_000)...), 1)
	var s Scanner
	for i := range stream {
		if whole, err := s.Feed(stream[i : i+1]); whole || err != nil {
			t.Fatalf("after %d bytes: %v, %v", i, whole, err)
		}
	}
	if got := len(s.message); got != 20_004 {
		t.Errorf("%d bytes of the message were kept", got)
	}
}

// FuzzHello compares the parser with crypto/tls. If both accept a hello, they
// find the same name. Fragmentation makes no difference.
func FuzzHello(f *testing.F) {
	f.Add(hello(f, &tls.Config{ServerName: "a.example"}), uint64(1))
	f.Add(hello(f, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}), uint64(2))
	f.Add(records(with(server(0, "a.example")), 3), uint64(3))
	f.Add(records(with(server(0, "a.example."), server(0, "b")), 300), uint64(4))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint64(5))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		h, fed, err := scan(stream, len(stream)+1)
		r := rand.New(rand.NewPCG(seed, 0))
		other, _, otherErr := scan(stream, 1+r.IntN(40))
		if h != other || (err == nil) != (otherErr == nil) {
			t.Fatalf("whole: %+v, %v; in pieces: %+v, %v", h, err, other, otherErr)
		}
		if fed > len(stream) {
			t.Fatalf("%d of %d bytes", fed, len(stream))
		}
		if name, ok := standard(stream); ok && err == nil && name != h.ServerName {
			t.Fatalf("we see %q, crypto/tls %q", h.ServerName, name)
		}
	})
}

// standard returns the server name that crypto/tls finds.
func standard(stream []byte) (name string, ok bool) {
	c := &sentConn{sent: bytes.NewReader(stream)}
	_ = tls.Server(c, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, errSeen
	}}).Handshake()
	return name, ok
}

// A sentConn is a connection whose peer has already sent everything.
type sentConn struct {
	capture
	sent *bytes.Reader
}

func (g *sentConn) Read(p []byte) (int, error)  { return g.sent.Read(p) }
func (g *sentConn) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkHello(b *testing.B) {
	stream := hello(b, &tls.Config{ServerName: "pay.example.com"})
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := scan(stream, len(stream)); err != nil {
			b.Fatal(err)
		}
	}
}
