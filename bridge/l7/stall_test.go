package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// silent begins a response in a protocol, and then stalls.
func (w *testbed) silent(proto, length string) (address string) {
	return w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if length != "" {
			rw.Header().Set("Content-Length", length)
		}
		fmt.Fprint(rw, "begun")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	}), proto)
}

func (w *testbed) impatient(p backs.Protocol, idle time.Duration, address string) *backs.Pools {
	protos := map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}
	return w.newBack(backs.Options{Protocol: p, TLS: true, Upstream: upstream.New(upstream.Options{
		Name: "up", ConnectTimeout: testTimeout, HandshakeTimeout: testTimeout, Logger: w.logger(hclog.Warn), IdleTimeout: idle,
		Endpoints: []upstream.EndpointOptions{{Network: "tcp", Address: address, Stream: w.client(), HTTP: w.client(protos[p])}},
	})})
}

// A stalled response is cut off, so that it does not look complete to the client.
// The log says why.
func TestAResponseThatStallsIsCutOff(t *testing.T) {
	t.Parallel()
	for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
		for _, length := range []string{"", "100"} {
			for _, front := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(fmt.Sprintf("from %d to %s, length %q", p, front, length), func(t *testing.T) {
					withGrowingLimit(t, 200*time.Millisecond, func(limit time.Duration) bool {
						w := newTestbed(t)
						back := w.impatient(p, limit, w.silent(map[backs.Protocol]string{backs.HTTP1: "http/1.1", backs.HTTP2: "h2"}[p], length))
						table := &Table{Default: to(back)}
						url := "http://"
						if front == "HTTP/2.0" {
							table.TLS, url = w.listenerTLS("h2"), "https://"
						}
						_, address := w.gateway(fixed(table))
						res, err := w.browser().Get(url + address + "/")
						if err != nil {
							t.Fatal(err)
						}
						defer res.Body.Close()
						body, err := io.ReadAll(res.Body)
						if res.StatusCode == 504 {
							return false
						}
						if string(body) != "begun" || err == nil || res.Proto != front {
							t.Errorf("%s: %q, %v", res.Proto, body, err)
						}
						eventually(t, "the log has the line", func() bool { return strings.Contains(w.log.String(), "reason=RESPONSE_TIMEOUT") })
						eventually(t, "the request has ended", func() bool { return back.Upstream().Load().InFlight == 0 })
						return true
					})
				})
			}
		}
	}
}

// A client whose response was cut off loses its connection, but its next request is
// served normally.
func TestAfterAStallRequestsAreServed(t *testing.T) {
	w := newTestbed(t)
	address := w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if r.URL.Path == "/stall" {
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
				continue
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde")
		}
	})
	withGrowingLimit(t, 20*time.Millisecond, func(limit time.Duration) bool {
		_, gateway := w.plain(w.impatient(backs.HTTP1, limit, address))
		for range 20 {
			res, err := w.browser().Get("http://" + gateway + "/stall")
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == 504 {
				return false
			}
			if err == nil {
				t.Error("a response that was cut off looks complete")
			}
			code, body := w.get(w.browser(), "http://"+gateway+"/")
			if code == 504 {
				return false
			}
			if code != 200 || body != "abcde" {
				t.Errorf("%d %q", code, body)
			}
		}
		return true
	})
}
