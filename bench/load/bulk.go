package load

import (
	"context"
	"math/rand/v2"

	"github.com/drawbridge-gateway/drawbridge/bench/wire"
)

// Down receives bytes as fast as possible over conns connections. Its unit is
// the byte, counted by the client.
func Down(conns int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		each(ctx, m, conns, func(int) error {
			seed := rand.Uint64()
			c, err := target.dial(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write(wire.AppendHeader(nil, wire.Source, seed)); err != nil {
				return err
			}
			buf := make([]byte, 128<<10)
			for offset := uint64(0); ; {
				n, err := c.Read(buf)
				if !wire.Matches(seed, offset, buf[:n]) {
					return errMismatch
				}
				if offset == 0 && n > 0 {
					m.workerReady()
				}
				offset += uint64(n)
				m.add(n)
				if err != nil {
					return err
				}
			}
		})
	}
}

// Up sends bytes as fast as possible over conns connections. The backend checks
// and counts the bytes. The units of the meter are the bytes sent.
func Up(conns int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		each(ctx, m, conns, func(int) error {
			seed := rand.Uint64()
			c, err := target.dial(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			if _, err := c.Write(wire.AppendHeader(nil, wire.Sink, seed)); err != nil {
				return err
			}
			const chunk = 128 << 10
			for offset := uint64(0); ; offset += chunk {
				n, err := c.Write(wire.At(seed, offset, chunk))
				m.add(n)
				if err != nil {
					return err
				}
				if offset == 0 {
					m.workerReady()
				}
			}
		})
	}
}
