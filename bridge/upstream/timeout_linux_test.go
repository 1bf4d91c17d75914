package upstream_test

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A kernel whose accept queue is full drops new connections, like a network
// that loses packets.
func TestAnEndpointThatDoesNotAnswerTimesOut(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(name.(*syscall.SockaddrInet4).Port))
	// A busy machine may stall for as long as a dial may take, so it must fail several times.
	for failed := 0; failed < 3; failed++ {
		if c, err := net.DialTimeout("tcp", address, 100*time.Millisecond); err == nil {
			defer c.Close()
			failed = -1
		}
	}

	u := upstream.New(upstream.Options{
		Name: "silent", ConnectTimeout: 50 * time.Millisecond,
		Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: address}},
	})
	_, _, err = u.Dial(t.Context(), upstream.Stream)
	var dial *upstream.DialError
	if !errors.As(err, &dial) || dial.Phase != "tcp" || dial.Reason != certs.ReasonConnectTimeout {
		t.Errorf("%v", err)
	}
	if s := only(t, u); s.Failures[certs.ReasonConnectTimeout] != 1 {
		t.Errorf("status %+v", s)
	}
}
