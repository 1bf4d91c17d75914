package upstream

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// A delayed connection holds back writes once hold is called.
type delayed struct {
	net.Conn
	mu      sync.Mutex
	holding bool
	held    []byte
}

func (d *delayed) hold() { d.mu.Lock(); d.holding = true; d.mu.Unlock() }

func (d *delayed) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.holding {
		d.held = append(d.held, p...)
		return len(p), nil
	}
	return d.Conn.Write(p)
}

// connectedPair returns both ends of a TLS connection; the first is in the mode of
// warm ones.
func connectedPair(t *testing.T, server *tls.Config) (*tls.Conn, *tls.Conn, *delayed) {
	t.Helper()
	ca := certstest.NewCA(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	server.Certificates = []tls.Certificate{certstest.TLS(t, ca.Server(t, "up.test"))}
	d := &delayed{Conn: far}
	serverEnd := tls.Server(d, server)
	client := tls.Client(socket.New(raw, nil), &tls.Config{ServerName: "up.test", RootCAs: ca.Pool(), ClientSessionCache: tls.NewLRUClientSessionCache(1)})
	done := make(chan error, 1)
	go func() { done <- serverEnd.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	socket.Of(client).Stream(new(socket.Pool))
	return client, serverEnd, d
}

// arrive waits until the kernel has data to read, or the end of the stream.
func arrive(t *testing.T, conn net.Conn) {
	t.Helper()
	raw, err := socket.Of(conn).Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	raw.Read(func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return err != syscall.EAGAIN
	})
}

func TestLookDetectsClosedConnections(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(server *tls.Conn, raw net.Conn)
		want func(error) bool
	}{
		"close_notify":    {func(c *tls.Conn, _ net.Conn) { c.CloseWrite() }, func(err error) bool { return err == io.EOF }},
		"no more":         {func(_ *tls.Conn, raw net.Conn) { raw.Close() }, func(err error) bool { return err == errTruncated || err == syscall.ECONNRESET }},
		"application":     {func(c *tls.Conn, _ net.Conn) { c.Write([]byte("x")) }, func(err error) bool { return err == errSpoke }},
		"no TLS at all":   {func(_ *tls.Conn, raw net.Conn) { io.WriteString(raw, "HTTP/1.1 200 OK\r\n\r\n") }, func(err error) bool { return err != nil && !certs.IsAlert(err) }},
		"a damaged alert": {func(_ *tls.Conn, raw net.Conn) { raw.Write([]byte("\x15\x03\x03\x00\x02\x02\x28")) }, func(err error) bool { return err != nil }},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(name+" "+tls.VersionName(version), func(t *testing.T) {
				client, server, d := connectedPair(t, &tls.Config{MaxVersion: version, SessionTicketsDisabled: true})
				for range 3 {
					if received, err := look(client); received || err != nil {
						t.Fatalf("idle: heard %v, %v", received, err)
					}
				}
				test.do(server, d.Conn)
				arrive(t, client)
				if _, err := look(client); !test.want(err) {
					t.Errorf("found %v", err)
				}
			})
		}
	}
}

// A server that sends endless ignorable records does not block look.
func TestLookIsBoundedForEndlessRecords(t *testing.T) {
	fills := 0
	received, err := readRecords(func([]byte) (int, error) { return 0, socket.ErrWouldBlock }, func() error { fills++; return nil })
	if !received || err != errFlood || fills != maxFillsOfLook {
		t.Errorf("heard %v, %v after %d fills", received, err, fills)
	}
}

// Tickets are consumed in pieces of any size, and the data that client and
// server exchange afterward is complete.
func TestLookConsumesTicketsAndLosesNoData(t *testing.T) {
	client, server, d := connectedPair(t, &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert}) // delays the tickets
	arrive(t, client)
	if received, err := look(client); !received || err != nil {
		t.Fatalf("heard %v, %v", received, err)
	}
	if received, err := look(client); received || err != nil {
		t.Fatalf("again: heard %v, %v", received, err)
	}

	// The answer arrives one byte at a time, and its first bytes arrive before the
	// connection is handed out.
	text := bytes.Repeat([]byte("0123456789"), 20)
	d.hold()
	server.Write(text)
	const early = 100 // number of early bytes of a record
	for _, b := range d.held[:early] {
		d.Conn.Write([]byte{b})
		arrive(t, client)
		if _, err := look(client); err != nil {
			t.Fatalf("within a record: %v", err)
		}
	}
	go d.Conn.Write(d.held[early:])
	var got []byte
	for p := make([]byte, 64); len(got) < len(text); {
		n, err := client.Read(p)
		got = append(got, p[:n]...)
		if err == socket.ErrWouldBlock {
			err = socket.Of(client).Fill()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(got, text) {
		t.Errorf("got %q", got)
	}
}
