package l7

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

// A floodingClient1 is an HTTP/1.1 client that sends for as long as the gateway reads. It
// is a bare descriptor, so it uses no memory of this process.
type floodingClient1 struct{ fd int }

// floodingClient1 sends a request, waits for an answer if upgrades is set, and returns the
// client.
func (w *testbed) floodingClient1(t *testing.T, address, request string, upgrades bool) floodingClient1 {
	c := w.dial(address)
	c.send(strings.Split(request, "\n")...)
	if upgrades {
		if res, err := http.ReadResponse(c.r, nil); err != nil || res.StatusCode != 101 {
			t.Fatalf("%v, %v", res, err)
		}
	}
	fd := bare(c.Conn)
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return floodingClient1{fd}
}

// flood sends data until the kernel accepts no more, and returns how much it has sent.
func (c floodingClient1) flood(data []byte) (sent int) {
	for {
		n, err := unix.Write(c.fd, data)
		if err != nil || n <= 0 {
			return sent
		}
		sent += n
	}
}

// What a client connection holds while its upstream reads nothing is bounded, however much
// the client sends.
func TestAConnectionWhoseUpstreamReadsNothingIsBounded(t *testing.T) {
	if alloctest.Race {
		t.Skip("the race detector's memory is in the sum")
	}
	// The rest of the last block, and two goroutines. A block is as large as what has
	// arrived, but not larger than half a MiB.
	const most = 640 << 10
	for name, c := range map[string]struct {
		request, answer string
		data            []byte
	}{
		"an upload":           {"POST / HTTP/1.1\nHost: a\nContent-Length: 1000000000000", "", make([]byte, 64<<10)},
		"an upload in chunks": {"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked", "", []byte(strings.Repeat("400\r\n"+strings.Repeat("x", 1<<10)+"\r\n", 64))},
		"tiny chunks":         {"POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked", "", []byte(strings.Repeat("1\r\nx\r\n", 10_000))},
		"a WebSocket": {"GET / HTTP/1.1\nHost: a\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: " + sampleKey,
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + sampleAccept + "\r\n\r\n", make([]byte, 64<<10)},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,tls=%v", name, secure), func(t *testing.T) {
				const n = 20
				w, arrived := newTestbed(t), make(chan struct{}, n)
				var config *tls.Config
				if secure {
					config = w.serverTLS("http/1.1")
				}
				_, address := w.plain(w.patientBack1(w.silentUpstream1(config, arrived, c.answer), secure))
				keepStackSize(w)
				open := func() floodingClient1 {
					client := w.floodingClient1(t, address, c.request, c.answer != "")
					<-arrived
					return client
				}
				first := open()
				first.flood(c.data)
				inUse() // settles the size of stacks
				before := inUse()
				var clients []floodingClient1
				for range n {
					clients = append(clients, open())
				}
				held, sent := 0, 0
				// A measurement may find bytes that still move, so the least counts.
				for deadline := time.Now().Add(testTimeout); ; {
					more := 0
					for _, client := range clients {
						more += client.flood(c.data)
					}
					sent += more
					if now := (inUse() - before) / n; held == 0 || now < held || more > 0 {
						held = now
					}
					if more == 0 && held <= most || time.Now().After(deadline) {
						break
					}
				}
				t.Logf("%d bytes are held for each, of %d that the gateway and the kernel took", held, sent/n)
				if held > most {
					t.Errorf("%d bytes are held for each, want at most %d", held, most)
				}
			})
		}
	}
}
