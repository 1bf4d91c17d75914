package load

import (
	"context"
	"errors"
	"net"
	"sync"
)

// Idle makes n connections that have each sent 64 bytes there and back, and
// then hold still. close ends them; until then each still has to work, which
// check finds out.
func Idle(ctx context.Context, target Target, n int) (check func() error, close func(), err error) {
	var mu sync.Mutex
	var errs []error
	var conns []net.Conn
	var wg sync.WaitGroup
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	for range 16 {
		wg.Go(func() {
			for {
				select {
				case <-work:
				default:
					return
				}
				c, err := echoConn(ctx, target)
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close = func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	if err := errors.Join(errs...); err != nil {
		close()
		return nil, nil, err
	}
	check = func() error {
		for i, c := range conns {
			if err := newMessage(i, 64).roundTrip(c); err != nil {
				return err
			}
		}
		return nil
	}
	return check, close, nil
}
