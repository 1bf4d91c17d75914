package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// Echo repeatedly sends a message of size bytes on each connection and waits
// for its echo. Its unit is the round trip.
func Echo(conns, size int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		// Only 32 workers at a time make connections, because a thousand concurrent
		// handshakes would time out. The measurement starts when all connections
		// exist.
		slots := make(chan struct{}, 32)
		each(ctx, m, conns, func(i int) error {
			slots <- struct{}{}
			c, err := echoConn(ctx, target)
			<-slots
			if err != nil {
				return err
			}
			defer c.Close()
			r := m.recorder()
			msg := newMessage(i, size)
			if !m.allReady(ctx) {
				return nil
			}
			for {
				start := time.Now()
				if err := msg.roundTrip(c); err != nil {
					return err
				}
				r.record(time.Since(start))
				m.add(1)
			}
		})
	}
}

// echoConn returns a connection whose backend echoes.
func echoConn(ctx context.Context, target Target) (net.Conn, error) {
	c, err := target.dial(ctx)
	if err != nil {
		return nil, err
	}
	header := wire.AppendHeader(nil, wire.Echo, 0)
	if err := newMessage(-1, 64).roundTripAfter(c, header); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// A message differs from all other messages of this and other connections.
type message struct {
	sent, got []byte
	number    uint64
}

func newMessage(conn, size int) *message {
	m := &message{sent: make([]byte, size), got: make([]byte, size)}
	copy(m.sent, wire.At(rand.Uint64(), uint64(conn+1), min(size, wire.MaxChunk)))
	return m
}

func (m *message) roundTrip(c net.Conn) error { return m.roundTripAfter(c, nil) }

// roundTripAfter sends before and the message in one write.
func (m *message) roundTripAfter(c net.Conn, before []byte) error {
	m.number++
	binary.BigEndian.PutUint64(m.sent, m.number)
	out := m.sent
	if len(before) > 0 {
		out = append(before, m.sent...)
	}
	if _, err := c.Write(out); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, m.got); err != nil {
		return err
	}
	if !bytes.Equal(m.got, m.sent) {
		return errMismatch
	}
	return nil
}
