package load

import (
	"bytes"
	"context"
	"encoding/binary"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/drawbridge-gateway/drawbridge/bench/backend"
)

// GRPCUnary makes calls repeatedly, with the given number at a time on each
// connection and messages of size bytes. Its unit is the call.
func GRPCUnary(conns, calls, size int) Func {
	return overGRPC(conns, calls, func(ctx context.Context, c *grpc.ClientConn, turn func(trip) error) error {
		return turn(func(out, in *wrapperspb.BytesValue) error {
			return c.Invoke(ctx, backend.EchoUnary, out, in)
		})
	}, size)
}

// GRPCStream keeps the given number of bidirectional streams open on each
// connection, and sends a message of size bytes on each when the previous one
// has returned. Its unit is the message.
func GRPCStream(conns, streams, size int) Func {
	return overGRPC(conns, streams, func(ctx context.Context, c *grpc.ClientConn, turn func(trip) error) error {
		s, err := c.NewStream(ctx, &backend.EchoStreams, backend.EchoStream)
		if err != nil {
			return err
		}
		return turn(func(out, in *wrapperspb.BytesValue) error {
			if err := s.SendMsg(out); err != nil {
				return err
			}
			return s.RecvMsg(in)
		})
	}, size)
}

// A trip is one round trip of a message.
type trip func(out, in *wrapperspb.BytesValue) error

// overGRPC runs work perConn times in parallel on each of conns connections;
// work passes turn its round trip.
func overGRPC(conns, perConn int, work func(ctx context.Context, c *grpc.ClientConn, turn func(trip) error) error, size int) Func {
	return func(ctx context.Context, target Target, m *Meter) {
		clients := make([]*grpc.ClientConn, conns)
		for i := range clients {
			c, err := grpc.NewClient("passthrough:///"+target.Address, grpc.WithTransportCredentials(credentials.NewTLS(target.TLS)))
			if err != nil {
				m.fail(err)
				return
			}
			defer c.Close()
			clients[i] = c
		}
		each(ctx, m, conns*perConn, func(i int) error {
			r := m.recorder()
			msg := newMessage(i, size)
			out, in := &wrapperspb.BytesValue{Value: msg.sent}, new(wrapperspb.BytesValue)
			return work(ctx, clients[i/perConn], func(there trip) error {
				for first := true; ; first = false {
					msg.number++
					binary.BigEndian.PutUint64(msg.sent, msg.number)
					start := time.Now()
					if err := there(out, in); err != nil {
						return err
					}
					r.record(time.Since(start))
					if !bytes.Equal(in.Value, msg.sent) {
						return errMismatch
					}
					m.add(1)
					if first {
						m.workerReady()
					}
				}
			})
		})
	}
}
