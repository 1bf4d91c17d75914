package wire

import (
	"bytes"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// connected returns both ends of a connection.
func connected(t *testing.T) (near, far net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	far, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	_ = near.SetDeadline(time.Now().Add(time.Minute))
	_ = far.SetDeadline(time.Now().Add(time.Minute))
	return near, far
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// A head larger than a buffer may begin in the same read as the end of a fast
// body. None of its bytes may be lost while the gateway waits for the rest.
func TestWaitKeepsUnreadBytes(t *testing.T) {
	near, far := connected(t)
	in := NewReader(socket.New(near, nil), nil, new(socket.Pool), nil)
	defer in.Drop()
	send := func(b []byte) {
		if _, err := far.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	send(make([]byte, socket.BufferSize)) // makes the next read a large one
	for n := 0; n < socket.BufferSize; {
		if err := in.More(); err != nil {
			t.Fatal(err)
		}
		n += len(in.unread)
		in.Consume(len(in.unread))
	}
	head := randomBytes(300 << 10)
	send(head[:100<<10])
	for len(in.unread) < 100<<10 {
		if err := in.More(); err != nil {
			t.Fatal(err)
		}
	}
	go func() { _, _ = far.Write(head[100<<10:]) }()
	for len(in.unread) < len(head) {
		if err := in.More(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(in.unread, head) {
		t.Error("the unread bytes differ from the bytes sent")
	}
}
