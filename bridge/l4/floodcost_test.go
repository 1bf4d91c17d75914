package l4_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
	"github.com/drawbridge-gateway/drawbridge/bridge/splice/splicetest"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// A recording is a connection whose writes can be recorded instead of sent.
type recording struct {
	net.Conn
	on      bool
	records [][]byte
}

func (r *recording) Write(p []byte) (int, error) {
	if !r.on {
		return r.Conn.Write(p)
	}
	r.records = append(r.records, bytes.Clone(p))
	return len(p), nil
}

// A playback is a connection that can read from memory. Each Read returns at most one record,
// so that taken counts the records that the reader has consumed.
type playback struct {
	net.Conn
	records [][]byte // nil: reads and writes use Conn
	rest    []byte   // the rest of the current record
	taken   int      // number of records read
	bytes   int
}

func (p *playback) Read(b []byte) (int, error) {
	if p.records == nil {
		return p.Conn.Read(b)
	}
	if len(p.rest) == 0 {
		if p.taken == len(p.records) {
			return 0, io.EOF
		}
		p.rest = p.records[p.taken]
		p.taken++
	}
	n := copy(b, p.rest)
	p.rest, p.bytes = p.rest[n:], p.bytes+n
	return n, nil
}

func (p *playback) Write(b []byte) (int, error) {
	if p.records == nil {
		return p.Conn.Write(b)
	}
	return len(b), nil
}

// A flooded is the gateway's side of a TLS connection whose peer has sent a flood.
type flooded struct {
	*playback
	tls   *tls.Conn
	meter *socket.RecordMeter
}

// flood connects a peer with the gateway's TLS client or server, and the peer sends
// records with little or no data.
func (p pki) flood(t *testing.T, ofClient bool, records int, send func(*splicetest.Hostile) error) flooded {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	for _, c := range []net.Conn{near, far} {
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	out, in := &recording{Conn: far}, &playback{Conn: near}
	sock := socket.New(in, nil)
	meter := socket.MeterRecords(sock)
	var own *tls.Conn
	var peer *splicetest.Peer
	var secrets *splicetest.Secrets
	var config *tls.Config
	if ofClient {
		config, secrets = splicetest.HostileConfig(p.client("gate.test"))
		peer, own = splicetest.NewPeer(out, splicetest.Client(config)), p.listener(t, "gate.test").Conn(sock)
	} else {
		config, secrets = splicetest.HostileConfig(p.server(t, "upstream.test"))
		peer = splicetest.NewPeer(out, splicetest.Server(config))
	}
	done := make(chan error, 1)
	go func() { done <- peer.Handshake() }()
	if ofClient {
		if err := own.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	} else {
		client, err := certs.NewClient(p.upstream(t, "upstream.test"))
		if err != nil {
			t.Fatal(err)
		}
		if own, err = client.Handshake(context.Background(), sock); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	out.on = true
	h := peer.Hostile(t, secrets, ofClient)
	for len(out.records) < records {
		if err := send(h); err != nil {
			t.Fatal(err)
		}
	}
	in.records = out.records
	return flooded{in, own, meter}
}

// read reads as the gateway does until the connection ends, and returns why.
func (f flooded) read() error {
	f.meter.Limit()
	var b [4096]byte
	for {
		n, err := f.tls.Read(b[:])
		if err != nil {
			return err
		}
		f.meter.Data(n)
	}
}

// A few records without data end the connection. It takes more of them if one-byte records
// lie between, or if each carries one byte of a handshake message. One-byte records cost
// memory and time in proportion to their bytes. The test prints the figures with -v.
func TestCostOfFloods(t *testing.T) {
	p := newPKI(t)
	oneByte := []byte{'x'}
	// A NewSessionTicket of 4 KiB, one byte in each record.
	ticket := append([]byte{4, 0, 16, 0, 0, 0, 14, 16, 1, 2, 3, 4, 0, 0x0f, 0xf3}, make([]byte, 4096-11)...)
	carrying := []struct {
		name         string
		send         func(*splicetest.Hostile) error
		upstreamOnly bool
		bound        alloctest.Bound
	}{
		{"records of a byte", func(h *splicetest.Hostile) error { return h.Send(splicetest.ApplicationRecord, oneByte) }, false, alloctest.Bound{}},
		{"a byte and a key update that requests one", func(h *splicetest.Hostile) error {
			return errors.Join(h.Send(splicetest.ApplicationRecord, oneByte), h.KeyUpdate(true))
		}, false, alloctest.Bound{
			CPU: time.Microsecond, Memory: 256, Ends: true, Reason: "two keys are derived for 50 bytes received, and 129 of them end the connection",
		}},
		{"session tickets in records of a byte", func(h *splicetest.Hostile) error {
			for i := range ticket {
				if err := h.Send(splicetest.HandshakeRecord, ticket[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		}, true, alloctest.Bound{CPU: time.Microsecond, Ends: true, Reason: "129 records, whose cost is bounded together, end the connection"}},
	}
	const maxEmpty = 32 // records; crypto/tls accepts 16
	for side, ofClient := range map[string]bool{"client": true, "upstream": false} {
		for name, send := range splicetest.Floods {
			t.Run("of the "+side+", "+name, func(t *testing.T) {
				f := p.flood(t, ofClient, 2*maxEmpty, send)
				if err := f.read(); err == nil || err == io.EOF {
					t.Errorf("the flood did not end the connection: %v", err)
				}
				t.Logf("%d records, %d bytes", f.taken, f.bytes)
				if f.taken > maxEmpty {
					t.Errorf("the connection ended after %d records", f.taken)
				}
			})
		}
		for _, c := range carrying {
			if ofClient && c.upstreamOnly {
				continue
			}
			t.Run("of the "+side+", "+c.name, func(t *testing.T) {
				const records, runs = 20_000, 4
				var all []flooded
				for range runs {
					all = append(all, p.flood(t, ofClient, records, c.send))
				}
				received := 0
				for _, r := range all[0].records {
					received += len(r)
				}
				if c.bound.Ends {
					if err := all[0].read(); !errors.Is(err, socket.ErrIdleRecords) {
						t.Fatalf("the flood did not end the connection: %v", err)
					}
					received, all = all[0].bytes, all[1:]
				}
				alloctest.WantCost(t, received, c.bound, func() {
					f := all[0]
					all = all[1:]
					if err := f.read(); f.bytes != received {
						t.Errorf("the connection ended after %d of %d bytes: %v", f.bytes, received, err)
					}
				})
			})
		}
	}
}
