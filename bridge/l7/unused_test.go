package l7

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A client that has just connected is about to send a request. If a drain
// closed its connection, that request would fail.
func TestShutdownServesTheFirstRequestOfNewConnections(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			w := newTestbed(t)
			table := &Table{Default: to(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(rw, "done")
			}))))}
			if secure {
				table.TLS = w.listenerTLS("http/1.1")
			}
			s, address := w.gateway(fixed(table))
			s.firstRequest = testTimeout // longer than a busy machine stalls
			raw, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			eventually(t, "the connection is accepted", func() bool { return s.Stats().Open == 1 })
			down := make(chan error, 1)
			go func() { down <- s.Shutdown(t.Context()) }()
			eventually(t, "the server begins to close", func() bool { return s.intake.Closing() })
			conn := net.Conn(raw)
			if secure {
				conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
			}
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if res.Body.Close(); res.StatusCode != 200 || !res.Close {
				t.Errorf("%v", res)
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
		})
	}
}
