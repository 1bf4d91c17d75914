// Package sockettest chooses addresses for tests.
package sockettest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Host returns a loopback address for this call alone, so that a port that the test closes and
// opens again is not given to another test in between: the kernel chooses ports for each address.
// If 127.0.0.1 is the only loopback address of the machine, Host returns that.
func Host() string {
	// The first two are left out because other tests use 127.0.0.1 and 127.0.0.2.
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return "127.0.0.1"
	}
	_ = l.Close()
	return host
}

// Free returns an address on which nothing listens, of a host of its own, for a server that must
// know its port in advance or that stops and starts again.
func Free(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(Host(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
