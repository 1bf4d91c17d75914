package l7

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/intake"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

// echoWhole sends a request's body back as it arrives, in pieces of all sizes.
var echoWhole = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		_ = http.NewResponseController(rw).EnableFullDuplex()
	}
	if r.ContentLength > 0 {
		rw.Header().Set("Content-Length", fmt.Sprint(r.ContentLength))
	}
	buf := make([]byte, 200<<10)
	for {
		n, err := r.Body.Read(buf[:rand.IntN(len(buf))+1])
		if _, werr := rw.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
})

// The gateway copies large blocks while both sides keep up, and smaller ones when one
// side stalls. Every byte arrives either way.
func TestLargeBodiesArriveAsTheyWereSent(t *testing.T) {
	sent := randomBytes(6 << 20)
	for name, chunked := range map[string]bool{"sized": false, "in chunks": true} {
		t.Run(name, func(t *testing.T) {
			schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
				table.Default = to(w.back(backs.HTTP1, w.server(echoWhole)))
				_, address := w.gateway(fixed(table))
				for _, buffer := range []int{0, 0, 64 << 10} {
					c := w.dial(address)
					if buffer > 0 { // makes the client fall behind
						_ = c.Conn.(*net.TCPConn).SetReadBuffer(buffer)
					}
					if scheme == "https" {
						tc := tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
						c.Conn, c.r = tc, bufio.NewReader(tc)
					}
					var body io.Reader = bytes.NewReader(sent)
					if chunked {
						body = io.MultiReader(body)
					}
					r, _ := http.NewRequest("POST", "http://a.example/", body)
					wrote := make(chan error, 1)
					go func() { wrote <- r.Write(c.Conn) }()
					res, got := c.answer(t, "POST")
					if err := <-wrote; err != nil || res.StatusCode != 200 || got != string(sent) {
						t.Fatalf("%d, %d of %d bytes, %v", res.StatusCode, len(got), len(sent), err)
					}
				}
			})
		})
	}
}

// The number of largest buffers is limited, so clients that stopped reading must
// not hold any.
func TestStuckClientsHoldNoLargeBuffer(t *testing.T) {
	const clients, largest = 70, 64
	schemes(t, func(t *testing.T, w *testbed, table *Table, scheme string) {
		piece := make([]byte, 64<<10)
		back := w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			for {
				if _, err := rw.Write(piece); err != nil {
					return
				}
			}
		})))
		table.Default = to(back)
		s, address := w.gateway(fixed(table))
		for range clients {
			c := w.dial(address)
			_ = c.Conn.(*net.TCPConn).SetReadBuffer(64 << 10) // makes the client stall sooner
			if scheme == "https" {
				c.Conn = tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
			}
			c.send("GET / HTTP/1.1", "Host: a.example")
			if _, err := io.ReadFull(c.Conn, make([]byte, 1<<20)); err != nil { // waits until bulk data flows
				t.Fatal(err)
			}
		}
		eventually(t, "all connections are stalled, and all the largest buffers are free", func() bool {
			stuck := true
			s.intake.Walk(func(o intake.Owner) { stuck = stuck && o.(*conn).direct.IsWaiting() })
			return stuck && large(&s.buffers, largest) == largest && large(back.Buffers(), largest) == largest
		})
	})
}

// large lends a number of buffers, and returns how many have the largest size.
func large(p *socket.Pool, lent int) (n int) {
	for range lent {
		b := p.LendLarge(1 << 20)
		defer p.Put(b)
		if len(*b) >= 512<<10 {
			n++
		}
	}
	return n
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
