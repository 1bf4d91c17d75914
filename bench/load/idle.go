package load

import (
	"context"
	"errors"
	"net/http"
	"sync"
)

// An Idler makes a connection and uses it once. The returned function uses it
// again.
type Idler func(ctx context.Context, target Target) (use func() error, close func(), err error)

// IdleEcho is an Idler for byte streams: it exchanges 64 bytes.
func IdleEcho(ctx context.Context, target Target) (use func() error, close func(), err error) {
	c, err := echoConn(ctx, target)
	if err != nil {
		return nil, nil, err
	}
	return func() error { return newMessage(0, 64).roundTrip(c) }, func() { _ = c.Close() }, nil
}

// IdleHTTP is an Idler of HTTP/1.1: a GET of 1 KiB.
func IdleHTTP(ctx context.Context, target Target) (use func() error, close func(), err error) {
	c, err := newHTTPConn(ctx, target, 1<<10, []string{"bench.test"})
	if err != nil {
		return nil, nil, err
	}
	c.buf = nil // saves memory, because a thousand buffers would take much
	return func() error {
		c.buf = make([]byte, 8<<10)
		return c.get(func(int) {})
	}, c.close, nil
}

// IdleHTTP2 is an Idler of HTTP/2: a GET of 1 KiB.
func IdleHTTP2(ctx context.Context, target Target) (use func() error, close func(), err error) {
	t := transport2(target)
	use = func() error { return get2(ctx, &http.Client{Transport: t}, target, 1<<10, make([]byte, 8<<10)) }
	return use, t.CloseIdleConnections, use()
}

// Idle makes n connections that then stay idle. close closes them; before
// that, check verifies that each still works.
func Idle(ctx context.Context, target Target, n int, idler Idler) (check func() error, close func(), err error) {
	var mu sync.Mutex
	var errs []error
	var uses []func() error
	var closes []func()
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
				use, end, err := idler(ctx, target)
				mu.Lock()
				if err != nil {
					errs = append(errs, err)
					mu.Unlock()
					return
				}
				uses, closes = append(uses, use), append(closes, end)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	close = func() {
		for _, end := range closes {
			end()
		}
	}
	if err := errors.Join(errs...); err != nil {
		close()
		return nil, nil, err
	}
	check = func() error {
		for _, use := range uses {
			if err := use(); err != nil {
				return err
			}
		}
		return nil
	}
	return check, close, nil
}
