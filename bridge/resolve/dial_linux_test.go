package resolve

import (
	"context"
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
)

// silent fills the accept queue of an address, so that the kernel drops new
// connections like a network that loses packets.
func silent(t *testing.T, ip [4]byte, port int) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: ip, Port: port}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(net.IP(ip[:]).String(), strconv.Itoa(port))
	for full := false; !full; {
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if full = err != nil; !full {
			t.Cleanup(func() { c.Close() })
		}
	}
}

// Three silent addresses of one family, such as those of an unreachable data
// center, leave time for the fourth. A net.Dialer waits two seconds for each.
func TestSilentAddressesDoNotUseUpTheTimeOfTheNext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	s := dnstest.NewServer(t)
	var records []dnstest.Record
	for _, last := range []byte{2, 3, 4} {
		silent(t, [4]byte{127, 0, 0, last}, port)
		records = append(records, dnstest.A(60, net.IPv4(127, 0, 0, last).String()))
	}
	s.Set("web.test", append(records, dnstest.A(60, "127.0.0.1"))...)
	lookup := lookup{ctx: t.Context(), server: s.Addr()}
	address := net.JoinHostPort("web.test.", strconv.Itoa(port))

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	start := time.Now()
	c, err := dial(ctx, lookup.resolver(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("connected to %v after %v", c.RemoteAddr(), time.Since(start))
	if got := c.RemoteAddr().String(); got != l.Addr().String() {
		t.Errorf("connected to %s", got)
	}
	c.Close()

	// If every attempt fails, Dial returns the error of the first.
	s.Set("web.test", records...)
	ctx, cancel = context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	_, err = dial(ctx, lookup.resolver(), "tcp", address)
	var op *net.OpError
	if !errors.As(err, &op) || !op.Timeout() || op.Addr.(*net.TCPAddr).IP.String() != "127.0.0.2" {
		t.Errorf("error %v", err)
	}
}
