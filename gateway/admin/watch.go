package admin

import (
	"context"

	"google.golang.org/grpc/codes"
)

// maxUnsent is how many updates may wait for a watcher that does not read.
const maxUnsent = 64

// relay calls first and then send with each update, until the stream of the
// context ends or a call fails. It calls them from a goroutine of its own,
// because a Send to a client that does not read would otherwise keep it from
// noticing that the client is too slow, for as long as the client likes.
func relay[T any](s *Server, ctx context.Context, method string, updates <-chan T, first func() error, send func(T) error) error {
	next := make(chan T)
	defer close(next)
	sent := make(chan error, 1)
	// It ends when next is closed, or when the caller's return, which ends the
	// stream, fails its Send.
	s.streams.Go(func() {
		sent <- s.recovered(method, func() error {
			if err := first(); err != nil {
				return err
			}
			for u := range next {
				if err := send(u); err != nil {
					return err
				}
			}
			return nil
		})
	})

	var unsent []T
	for {
		var out chan<- T
		var oldest T
		if len(unsent) > 0 {
			out, oldest = next, unsent[0]
		}
		select {
		case u, ok := <-updates:
			if !ok || len(unsent) == maxUnsent {
				return s.watchEnded()
			}
			unsent = append(unsent, u)
		case out <- oldest:
			unsent = unsent[1:]
		case err := <-sent:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchEnded returns why a watch ended that neither its client nor an error
// did end.
func (s *Server) watchEnded() error {
	select {
	case <-s.stopping:
		return errStopping()
	default:
		return statusWith(codes.ResourceExhausted, "WATCH_TOO_SLOW", "the watch was read too slowly: watch again").Err()
	}
}
