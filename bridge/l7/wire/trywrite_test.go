package wire

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http1"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// Parts of an upload over TLS leave together while the kernel has room, so that each of
// them does not cost a poll and a write of its own.
func TestTryWriteBodyGathersRecords(t *testing.T) {
	near, far := connected(t)
	ca := certstest.NewCA(t)
	sock := socket.New(near, nil)
	server := tls.Server(sock, &tls.Config{
		Certificates: []tls.Certificate{certstest.TLS(t, ca.Server(t, "front.test"))}, SessionTicketsDisabled: true,
	})
	client := tls.Client(far, &tls.Config{RootCAs: ca.Pool(), ServerName: "front.test"})
	received := make(chan []byte, 1)
	go func() {
		all, err := io.ReadAll(client)
		if err != nil {
			t.Error(err)
		}
		received <- all
	}()
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	body := randomBytes(32 << 10)
	w := NewWriter(server, sock, new(socket.Pool))
	w.Frame(http1.Framing{Body: http1.Sized, Length: int64(len(body))})
	const part = 4 << 10
	for i := 0; i < len(body); i += part {
		n, err := w.TryWriteBody(body[i : i+part])
		if n != part || err != nil {
			t.Fatalf("%d of %d bytes: %v", n, part, err)
		}
		held, parts := sock.Held(), i/part%4+1
		if held < parts*part || held > maxRecords {
			t.Errorf("after %d bytes it holds %d, want those of %d parts", i+part, held, parts)
		}
	}
	if err := w.EndBody(nil); err != nil {
		t.Fatal(err)
	}
	if err := w.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if all := <-received; !bytes.Equal(all, body) {
		t.Errorf("%d bytes arrived, which differ from the %d sent", len(all), len(body))
	}
}
