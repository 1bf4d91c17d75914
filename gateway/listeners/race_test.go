package listeners

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// An accept loop closes its socket while clients connect, and another loop accepts from a
// copy of the socket, as in an upgrade. This happens thousands of times, and no client is
// refused or reset.
func TestNoClientIsLostBetweenTwoAcceptLoops(t *testing.T) {
	times := 5000
	if testing.Short() {
		times = 300
	}
	descriptors := NewDescriptors(hclog.NewNullLogger())
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := socket.Addr().String()
	stop := make(chan struct{})
	var clients, loops sync.WaitGroup
	var served int64
	for n := range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := askForAByte(address); err != nil {
					t.Error(err)
					return
				}
				if n == 0 {
					served++
				}
			}
		})
	}
	serve := func(l net.Listener) {
		loops.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Error(err)
					}
					return
				}
				loops.Go(func() {
					_, _ = conn.Write([]byte{1})
					conn.Close()
				})
			}
		})
	}
	hold := make(chan struct{})
	current := socket.(*net.TCPListener)
	accepting := newLease(current, descriptors, hold)
	close(hold)
	serve(accepting)
	for range times {
		copied, err := current.File()
		if err != nil {
			t.Fatal(err)
		}
		next, err := net.FileListener(copied)
		copied.Close()
		if err != nil {
			t.Fatal(err)
		}
		// The new process has bound its sockets, and may accept once it is ready.
		hold := make(chan struct{})
		following := newLease(next.(*net.TCPListener), descriptors, hold)
		serve(following)
		close(hold)
		accepting.Close()
		current.Close()
		current, accepting = next.(*net.TCPListener), following
	}
	close(stop)
	clients.Wait()
	accepting.Close()
	current.Close()
	loops.Wait()
	if served == 0 {
		t.Error("no client was served")
	}
}

// askForAByte connects and reads one byte.
func askForAByte(address string) error {
	conn, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}
