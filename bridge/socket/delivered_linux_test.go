package socket

import (
	"io"
	"net"
	"testing"
	"time"
)

// Unread bytes of the peer accumulate, and reading them shows as progress.
func TestDeliveredFollowsThePeer(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = t.TempDir() + "/s"
			}
			ln, err := net.Listen(network, address)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			far, err := net.Dial(network, ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			nc, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			s := New(nc, nil)
			defer s.Close()
			written := make(chan struct{})
			go func() {
				defer close(written)
				_, _ = s.Write(make([]byte, 16<<20))
			}()
			deadline := time.Now().Add(time.Minute)
			for _, waiting := s.Delivered(); waiting == 0; _, waiting = s.Delivered() {
				if time.Now().After(deadline) {
					t.Fatal("nothing waits")
				}
				time.Sleep(time.Millisecond)
			}
			before, _ := s.Delivered()
			if _, err := io.CopyN(io.Discard, far, 12<<20); err != nil {
				t.Fatal(err)
			}
			if after, _ := s.Delivered(); after == before && network == "tcp" {
				t.Errorf("progress stays at %d", after)
			}
			if _, err := io.CopyN(io.Discard, far, 4<<20); err != nil {
				t.Fatal(err)
			}
			<-written
			for _, waiting := s.Delivered(); waiting != 0; _, waiting = s.Delivered() {
				if time.Now().After(deadline) {
					t.Fatal("some bytes stay unacknowledged forever")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}
