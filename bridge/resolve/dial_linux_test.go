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
	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
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
	// A busy machine may stall for as long as a dial may take, so it must fail several times.
	for failed := 0; failed < 3; failed++ {
		if c, err := net.DialTimeout("tcp", address, 100*time.Millisecond); err == nil {
			t.Cleanup(func() { c.Close() })
			failed = -1
		}
	}
}

// Three silent addresses of one family, such as those of an unreachable data
// center, leave time for the fourth. A net.Dialer waits two seconds for each.
func TestASilentAddressLeavesTimeForTheNext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	s := dnstest.NewServer(t)
	var records []dnstest.Record
	var hosts []net.IP
	for range 3 {
		host := net.ParseIP(sockettest.Host()).To4()
		silent(t, [4]byte(host), port)
		hosts = append(hosts, host)
		records = append(records, dnstest.A(60, host.String()))
	}
	s.Set("web.test", append(records, dnstest.A(60, "127.0.0.1"))...)
	lookup := lookup{ctx: t.Context(), server: s.Addr()}
	address := net.JoinHostPort("web.test.", strconv.Itoa(port))

	start := time.Now()
	var c net.Conn
	for tries := 1; ; tries++ {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if c, err = dial(ctx, lookup.resolver(), "tcp", address); err == nil {
			break
		}
		if tries == 5 { // a busy machine may stall for as long as the limit, but not each time
			t.Fatal(err)
		}
	}
	t.Logf("connected to %v after %v", c.RemoteAddr(), time.Since(start))
	if got := c.RemoteAddr().String(); got != l.Addr().String() {
		t.Errorf("connected to %s", got)
	}
	c.Close()

	// If every attempt fails, Dial returns the error of the first.
	s.Set("web.test", records...)
	for limit := 600 * time.Millisecond; ; limit *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err = dial(ctx, lookup.resolver(), "tcp", address)
		var op *net.OpError
		if errors.As(err, &op) && op.Addr == nil && limit < time.Minute {
			continue // a busy machine stalled for that long before DNS had answered
		}
		if op == nil || !op.Timeout() || op.Addr == nil || op.Addr.(*net.TCPAddr).IP.String() != hosts[0].String() {
			t.Errorf("error %v", err)
		}
		return
	}
}
