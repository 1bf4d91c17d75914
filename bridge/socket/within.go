package socket

import (
	"context"
	"net"
	"time"
)

// Within runs f, whose reads and writes of conn fail when ctx ends. It owns the
// deadlines of conn until it returns, and leaves none if f succeeds.
func Within(ctx context.Context, conn net.Conn, f func() error) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection, and then f fails too
	})
	err := f()
	if !stop() {
		<-interrupted
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	if err != nil {
		return err
	}
	return conn.SetDeadline(time.Time{})
}
