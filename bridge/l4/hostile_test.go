package l4_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l4"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// floodLimit is far more than the kernel buffers of a connection: a gateway that accepts
// so much of a flood has no bound.
const floodLimit = 64 << 20

// floods are records that carry no data and can be sent without end.
var floods = map[string]func(h *splicetest.Hostile) error{
	"key updates":                   func(h *splicetest.Hostile) error { return h.KeyUpdate(false) },
	"key updates that request one":  func(h *splicetest.Hostile) error { return h.KeyUpdate(true) },
	"empty records":                 func(h *splicetest.Hostile) error { return h.Send(splicetest.ApplicationRecord, nil) },
	"empty handshake records":       func(h *splicetest.Hostile) error { return h.Send(splicetest.HandshakeRecord, nil) },
	"warnings":                      func(h *splicetest.Hostile) error { return h.Send(splicetest.AlertRecord, []byte{1, 90}) },
	"session tickets":               func(h *splicetest.Hostile) error { return h.Send(splicetest.HandshakeRecord, ticket) },
	"a handshake message of 16 MiB": func(h *splicetest.Hostile) error { return h.Send(splicetest.HandshakeRecord, endless) },
	"many messages in one record": func(h *splicetest.Hostile) error {
		return h.Send(splicetest.HandshakeRecord, bytes.Repeat(ticket, 500))
	},
	"empty records and key updates": func(h *splicetest.Hostile) error {
		if err := h.Send(splicetest.ApplicationRecord, nil); err != nil {
			return err
		}
		return h.KeyUpdate(true)
	},
}

var (
	// ticket is a NewSessionTicket (RFC 8446, section 4.6.1) of one byte.
	ticket = []byte{4, 0, 0, 14, 0, 0, 14, 16, 1, 2, 3, 4, 0, 0, 1, 7, 0, 0}
	// endless is a part of a NewSessionTicket whose length is 16 MiB, or of its content.
	endless = bytes.Repeat([]byte{4, 255, 255, 255}, 4000)
)

// wantFloodEnded sends a flood until the gateway ends the connection.
func wantFloodEnded(t *testing.T, raw net.Conn, sent func() int, flood func() error) {
	t.Helper()
	raw.SetDeadline(time.Now().Add(time.Minute))
	answers := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, raw) // such as the key updates that were requested
		answers <- err
	}()
	for sent() < floodLimit {
		if err := flood(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the gateway has stopped reading after %d bytes, and did not end the connection", sent())
			}
			break
		}
	}
	if sent() >= floodLimit {
		t.Errorf("the gateway accepted %d bytes", sent())
		raw.Close()
	}
	if err := <-answers; errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open")
	}
}

func secretly(config *tls.Config) (*tls.Config, *splicetest.Secrets) {
	secrets := new(splicetest.Secrets)
	config = config.Clone()
	config.KeyLogWriter, config.SessionTicketsDisabled, config.MinVersion = secrets, true, tls.VersionTLS13
	return config, secrets
}

// A client that sends what carries no data, without end, is disconnected. Others are
// served.
func TestFloodsOfAClientEnd(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	echo(t, ln, nil)
	g := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), Default: through(group(plain(ln)))})
	for name, send := range floods {
		t.Run(name, func(t *testing.T) {
			config, secrets := secretly(&tls.Config{ServerName: "gate.test", RootCAs: p.ca.Pool()})
			c := g.dial(t, config)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			h := c.Hostile(t, secrets, true)
			wantFloodEnded(t, c.Raw.Conn, func() int { return h.Sent }, func() error { return send(h) })
		})
	}
	other := g.dial(t, &tls.Config{ServerName: "gate.test", RootCAs: p.ca.Pool()})
	other.Send(t, "hello")
	other.CloseWrite()
	other.WantEnd(t, "hello", clean)
}

// The same floods, of an upstream.
func TestFloodsOfAnUpstreamEnd(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	g := serve(t, &l4.Table{Default: through(group(over(t, ln, certs.ClientOptions{
		Trust: []*certs.TrustBundle{p.ca.Trust(t)}, ServerName: "upstream.test", Certificate: nil})))})
	for name, send := range floods {
		t.Run(name, func(t *testing.T) {
			config, secrets := secretly(p.server(t, "upstream.test"))
			c := g.dial(t, nil)
			c.Send(t, "hello")
			u := accept(t, ln, config)
			if err := u.Handshake(); err != nil {
				t.Fatal(err)
			}
			h := u.Hostile(t, secrets, false)
			wantFloodEnded(t, u.Raw.Conn, func() int { return h.Sent }, func() error { return send(h) })
			if got, how := c.ReadAll(); len(got) > 0 || how == clean {
				t.Errorf("the client got %q and a %s end", got, how)
			}
		})
	}
}

// plainFloods are sent in place of a handshake.
var plainFloods = map[string][]byte{
	"empty handshake records": {22, 3, 3, 0, 0},
	"warnings":                {21, 3, 3, 0, 2, 1, 90},
	"changes of cipher":       {20, 3, 3, 0, 1, 1},
	"empty data records":      {23, 3, 3, 0, 0},
	"hello requests":          {22, 3, 3, 0, 4, 0, 0, 0, 0},
}

// writeFlood returns a flood of a record, many in each write.
func writeFlood(raw net.Conn, record []byte) (sent func() int, flood func() error) {
	total := 0
	many := bytes.Repeat(record, 1000)
	return func() int { return total }, func() error {
		n, err := raw.Write(many)
		total += n
		return err
	}
}

func TestFloodsInPlaceOfAHandshakeEnd(t *testing.T) {
	p := newPKI(t)
	ln := listen(t, "tcp")
	listener := serve(t, &l4.Table{TLS: p.listener(t, "gate.test"), HandshakeTimeout: time.Hour, Default: through(group(plain(ln)))})
	bridge := serve(t, &l4.Table{Default: through(group(over(t, ln, certs.ClientOptions{
		Trust: []*certs.TrustBundle{p.ca.Trust(t)}, ServerName: "upstream.test"})))})
	for name, record := range plainFloods {
		for where, before := range map[string][]byte{"at the start": nil, "after a hello": hello(t)} {
			t.Run("client: "+name+" "+where, func(t *testing.T) {
				c := listener.dial(t, nil)
				if _, err := c.Raw.Write(before); err != nil {
					t.Fatal(err)
				}
				sent, flood := writeFlood(c.Raw.Conn, record)
				wantFloodEnded(t, c.Raw.Conn, sent, flood)
			})
		}
		t.Run("upstream: "+name, func(t *testing.T) {
			c := bridge.dial(t, nil)
			c.Send(t, "hello")
			u := accept(t, ln, nil)
			sent, flood := writeFlood(u.Raw.Conn, record)
			wantFloodEnded(t, u.Raw.Conn, sent, flood)
			if got, how := c.ReadAll(); len(got) > 0 || how == clean {
				t.Errorf("the client got %q and a %s end", got, how)
			}
		})
	}
}
