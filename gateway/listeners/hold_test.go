package listeners

import (
	"net"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// While another process serves the socket, this process must not accept its
// clients.
func TestAHeldListenerAcceptsNothing(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hold := make(chan struct{})
	l := newLease(socket.(*net.TCPListener), NewDescriptors(hclog.NewNullLogger()), hold)
	client, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	accepted := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			err = conn.Close()
		}
		accepted <- err
	}()
	other, err := socket.Accept()
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	again, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	close(hold)
	if err := <-accepted; err != nil {
		t.Error(err)
	}
	l.Close()

	closed := newLease(socket.(*net.TCPListener), l.descriptors, make(chan struct{}))
	closed.Close()
	if _, err := closed.Accept(); err == nil {
		t.Error("a closed lease accepts")
	}
}
