package l7

import (
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A timeout in any step is answered with 504.
func TestTimeoutsOfConnectingAndOfTheHandshake(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address func(w *testbed) string
		connect time.Duration
		reason  certs.Reason
	}{
		"connecting":    {silent, 50 * time.Millisecond, certs.ReasonConnectTimeout},
		"the handshake": {func(w *testbed) string { return w.raw(nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }) }, testTimeout, certs.ReasonHandshakeTimeout},
	} {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2, backs.Auto} {
			w := newTestbed(t)
			up := upstream.New(upstream.Options{
				Name: "up", ConnectTimeout: c.connect, HandshakeTimeout: 50 * time.Millisecond,
				Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: c.address(w), Stream: w.client(), HTTP: w.client("h2", "http/1.1")}},
			})
			_, address := w.plain(w.newBack(backs.Options{Upstream: up, Protocol: p, TLS: true}))
			browser := w.browser()
			if code, body := w.get(browser, "http://"+address); code != 504 || body != "gateway timeout\n" {
				t.Errorf("%s, protocol %d: %d %q", name, p, code, body)
			}
			if status := w.grpc(browser, "http://"+address); status != "14" {
				t.Errorf("%s, protocol %d: gRPC status %q", name, p, status)
			}
			if n := up.Status()[0].Failures[c.reason]; n != 2 {
				t.Errorf("%s, protocol %d: %s was counted %d times", name, p, c.reason, n)
			}
		}
	}
}

// silent returns an address that never answers: the kernel drops SYNs when its
// queue of connections is full, like a network that loses packets.
func silent(w *testbed) string {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		w.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		w.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		w.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	// A busy machine may stall for as long as a dial may take, so it must fail several times.
	for failed := 0; failed < 3; failed++ {
		if c, err := net.DialTimeout("tcp", address, 100*time.Millisecond); err == nil {
			w.Cleanup(func() { c.Close() })
			failed = -1
		}
	}
	return address
}
