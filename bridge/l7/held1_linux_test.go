package l7

import (
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// silentUpstream1 is an HTTP/1.1 upstream that reads the head of each request, sends
// answer, and then neither reads nor sends. It speaks plaintext if config is nil. Its
// connections are bare descriptors, so they use no memory of this process.
func (w *testbed) silentUpstream1(config *tls.Config, arrived chan<- struct{}, answer string) (address string) {
	ln := listen(w)
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		w.Fatal(err)
	}
	// A small receive buffer and small segments keep the kernel from taking a body.
	if err := raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536)
	}); err != nil {
		w.Fatal(err)
	}
	head := make([]byte, 200)
	w.serveBare(ln, config, func(_ *net.TCPConn, peer net.Conn) func() {
		n, _ := peer.Read(head)
		_, _ = io.WriteString(peer, answer) // a client that gets no answer reports it
		return func() {
			if n > 0 {
				arrived <- struct{}{}
			}
		}
	})
	return ln.Addr().String()
}

// serveBare accepts connections until the test ends, plaintext if config is nil. It serves one
// after another: peer is c, or TLS on top of it. After serve a connection stays open as a bare
// descriptor, which uses no memory of this process; then serveBare calls what serve returned.
func (w *testbed) serveBare(ln net.Listener, config *tls.Config, serve func(c *net.TCPConn, peer net.Conn) (then func())) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var fds []int
		defer func() {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
		}()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(testTimeout))
			peer := c
			if config != nil {
				peer = tls.Server(c, config)
			}
			then := serve(c.(*net.TCPConn), peer)
			fds = append(fds, bare(c))
			then()
		}
	}()
	w.Cleanup(func() { ln.Close(); <-done })
}

// bare returns a blocking descriptor of c and closes c.
func bare(c net.Conn) (own int) {
	defer c.Close()
	own = -1
	if raw, err := c.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { own, _ = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	}
	_ = unix.SetNonblock(own, false)
	return own
}

// patientBack1 returns a Back to an HTTP/1.1 upstream that may take long to accept many
// connections on a busy machine.
func (w *testbed) patientBack1(address string, secure bool) *backs.Pools {
	e := upstream.EndpointOptions{Network: "tcp", Address: address}
	if secure {
		e.HTTP = w.client("http/1.1")
	}
	return w.newBack(backs.Options{Protocol: backs.HTTP1, TLS: secure, Upstream: upstream.New(upstream.Options{
		Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Endpoints: []upstream.EndpointOptions{e},
	})})
}

// tlsMemory bounds what TLS adds to a connection to an upstream. Most of it belongs to
// crypto/tls, which never frees it: buffers with the server's certificate and its last
// message (4 KiB), keys (2 KiB), the state of the connection and its peer (4 KiB); and the
// goroutine has a larger stack. A client cannot make it grow, and the upstream's limits
// bound the number of connections.
const tlsMemory = 14 << 10

// Requests to an HTTP/1.1 upstream, each with its own connection, hold little memory too.
// Their bodies count as parts of their windows. TLS adds no buffer for what the client
// sends.
func TestARequestToHTTP1HoldsLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	post := []string{":method: POST", ":path: /"}
	for name, request := range map[string]struct {
		heldRequest
		buffers int // most that the body may take, as a part of its window
	}{
		"without a body":                           {heldRequest{fields: []string{":method: GET", ":path: /"}, end: true}, 0},
		"whose body has not begun":                 {heldRequest{fields: post}, 0},
		"with a part of its body":                  {heldRequest{fields: post, body: "x"}, 0},
		"whose body the upstream does not request": {heldRequest{fields: append(post, "expect: 100-continue")}, 0},
		"with a few KiB":                           {heldRequest{fields: post, body: strings.Repeat("x", 3<<10)}, 0},
		"with a window":                            {heldRequest{fields: post, body: strings.Repeat("x", 65535)}, 65535},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,tls=%v", name, secure), func(t *testing.T) {
				w, arrived := newTestbed(t), make(chan struct{}, maxStreams)
				most := maxStreamMemory/maxStreams + 2<<10 // the count is a little inexact
				var config *tls.Config
				if secure {
					config, most = w.serverTLS("http/1.1"), most+tlsMemory
				}
				request.upstream = w.patientBack1(w.silentUpstream1(config, arrived, ""), secure)
				held := request.heldAt(w, arrived) - request.buffers
				if held > most {
					t.Errorf("%d bytes are held for each request besides its window, want at most %d", held, most)
				}
			})
		}
	}
}

// Open WebSockets of one HTTP/2 connection, which have carried data both ways, hold little.
func TestAnOpenWebSocketHoldsLittle(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	w := newTestbed(t)
	ln := listen(w)
	head := make([]byte, 1000)
	w.serveBare(ln, nil, func(_ *net.TCPConn, peer net.Conn) func() {
		n, _ := peer.Read(head)
		_, key, _ := strings.Cut(string(head[:n]), "Sec-WebSocket-Key: ")
		key, _, _ = strings.Cut(key, "\r\n")
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(peer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\nhello", base64.StdEncoding.EncodeToString(sum[:]))
		return func() {}
	})
	_, address := w.plain(w.patientBack1(ln.Addr().String(), false))
	keepStackSize(w)
	c := w.framed(t, address, false)
	defer c.Close()
	next := uint32(1)
	ask := func(n int) {
		c.requestAll(w, &next, n, ":method: CONNECT", ":protocol: websocket", ":scheme: http", ":authority: a", ":path: /", "sec-websocket-version: 13")
		for stream := next - uint32(2*n); stream < next; stream += 2 {
			_ = c.framer.WriteData(stream, false, []byte("hello"))
		}
	}
	ask(1)
	inUse() // settles the size of stacks
	before := inUse()
	const sockets = maxStreams - 1
	ask(sockets)
	held := 0
	for run := range 10 {
		if now := (inUse() - before) / sockets; run == 0 || now < held {
			held = now
		}
	}
	t.Logf("%d bytes are held for each, %d KiB in all", held, held*sockets>>10)
	// A collection shrinks stacks or not, depending on where their goroutines wait: 4 KiB.
	if most := maxStreamMemory/maxStreams + 6<<10; held > most {
		t.Errorf("%d bytes are held for each, want at most %d", held, most)
	}
}
