package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
)

// The gateway disconnects a client that sends an endless series of TLS records
// without data before its first request, in both HTTP versions.
func TestFloodsFromAClientEndTheConnection(t *testing.T) {
	w := newTestbed(t)
	b := w.back(backs.HTTP1, w.server(http.NotFoundHandler(), "http/1.1"))
	for _, protocol := range []string{"http/1.1", "h2"} {
		_, address := w.gateway(fixed(&Table{TLS: w.listenerTLS(protocol), Default: to(b)}))
		for name, send := range splicetest.AllFloods() {
			t.Run(protocol+", "+name, func(t *testing.T) {
				config, secrets := splicetest.HostileConfig(&tls.Config{ServerName: "localhost", RootCAs: w.ca.Pool(), NextProtos: []string{protocol}})
				raw, err := net.Dial("tcp", address)
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				c := splicetest.NewPeer(raw, splicetest.Client(config))
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				h := c.Hostile(t, secrets, true)
				splicetest.WantFloodEnded(t, raw, func() int { return h.Sent }, func() error { return send(h) })
			})
		}
	}
}

// An appended is a connection that only records the written bytes.
type appended struct {
	net.Conn
	written bytes.Buffer
}

func (a *appended) Write(p []byte) (int, error) { return a.written.Write(p) }

// longRequest returns a request of more than 1000 bytes.
func longRequest(protocol string) []byte {
	path := "/" + strings.Repeat("x", 1000)
	if protocol == "http/1.1" {
		return []byte("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	var a appended
	newFramed(&a).headers(1, []string{":method: GET", ":scheme: https", ":authority: localhost", ":path: " + path}, true)
	return a.written.Bytes()
}

// A client that sends each byte of a request in its own TLS record is served, but not if
// it adds records without data.
func TestRecordsWithoutDataEndTheConnection(t *testing.T) {
	w := newTestbed(t)
	for _, protocol := range []string{"http/1.1", "h2"} {
		t.Run(protocol, func(t *testing.T) { w.recordsWithoutData(t, protocol) })
	}
}

func (w *testbed) recordsWithoutData(t *testing.T, protocol string) {
	_, address := w.gateway(fixed(&Table{TLS: w.listenerTLS(protocol), HeaderReadTimeout: time.Hour, Default: &Action{Respond: &Respond{}}}))
	for _, idle := range []bool{false, true} {
		config, secrets := splicetest.HostileConfig(&tls.Config{ServerName: "localhost", RootCAs: w.ca.Pool(), NextProtos: []string{protocol}})
		raw, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		_ = raw.SetDeadline(time.Now().Add(testTimeout))
		c := splicetest.NewPeer(raw, splicetest.Client(config))
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		h := c.Hostile(t, secrets, true)
		for _, b := range longRequest(protocol) {
			if idle && h.KeyUpdate(false) != nil || h.Send(splicetest.ApplicationRecord, []byte{b}) != nil {
				break // the connection has ended
			}
		}
		if idle {
			if _, err := io.Copy(io.Discard, raw); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
		} else if got, err := c.Read(make([]byte, 100)); err != nil {
			t.Errorf("without them: %d bytes, %v", got, err)
		}
	}
}

// If an upstream answers a request with such a flood, the gateway ends the
// connection and the request.
func TestFloodsFromAnUpstreamEndTheConnection(t *testing.T) {
	w := newTestbed(t)
	for protocol, version := range map[string]backs.Protocol{"http/1.1": backs.HTTP1, "h2": backs.HTTP2} {
		for name, send := range splicetest.AllFloods() {
			t.Run(protocol+", "+name, func(t *testing.T) {
				upstream := w.raw(nil, func(raw net.Conn) {
					config, secrets := splicetest.HostileConfig(w.serverTLS(protocol))
					u := splicetest.NewPeer(raw, splicetest.Server(config))
					if u.Handshake() != nil {
						return
					}
					if _, err := u.Read(make([]byte, 1)); err != nil { // reads the request, or the preface of HTTP/2
						return
					}
					h := u.Hostile(w, secrets, false)
					splicetest.WantFloodEnded(w, raw, func() int { return h.Sent }, func() error { return send(h) })
				})
				_, address := w.plain(w.back(version, upstream))
				if code, _ := w.get(w.browser(), "http://"+address+"/"); code != http.StatusBadGateway {
					t.Errorf("code %d", code)
				}
			})
		}
	}
}
