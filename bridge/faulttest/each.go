package faulttest

import (
	"net"
	"testing"
	"testing/synctest"
)

// Each calls test without a fault, and then with each kind of fault at about positions
// evenly spaced operations; 0 means at every operation. Each call runs in a
// testing/synctest bubble and returns the number of operations on the connection with the
// fault.
func Each(t *testing.T, positions int, test func(*testing.T, Fault) (ops int)) {
	t.Helper()
	ops := run(t, Fault{}, test)
	step := 1
	if positions > 0 {
		step = max(1, ops/positions)
	}
	for at := 0; at < ops; at += step {
		for _, kind := range Kinds {
			run(t, Fault{Kind: kind, At: at}, test)
		}
	}
}

func run(t *testing.T, f Fault, test func(*testing.T, Fault) (ops int)) (ops int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Log(f)
			}
		}()
		ops = test(t, f)
	})
	return ops
}

// InPieces returns a connection over nc that writes at most n bytes at a time, and lets
// the bubble's other goroutines handle each piece before the next.
func InPieces(nc net.Conn, n int) net.Conn { return piecewise{nc, n} }

type piecewise struct {
	net.Conn
	most int
}

func (c piecewise) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		var m int
		m, err = c.Conn.Write(p[:min(c.most, len(p))])
		n, p = n+m, p[m:]
		synctest.Wait()
	}
	return n, err
}
