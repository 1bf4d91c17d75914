package resolve

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/resolve/dnstest"
)

// wantPanic checks that err is a panic with its stack.
func wantPanic(t *testing.T, err error) {
	t.Helper()
	if p, ok := errors.AsType[*PanicError](err); !ok || !strings.Contains(string(p.Stack), "panic_internal_test.go") {
		t.Errorf("%T %v", err, err)
	}
}

// A panic in any goroutine is returned as an error.
func TestAPanicIsAnError(t *testing.T) {
	t.Run("reading a message", func(t *testing.T) {
		var none *lookup // a nil lookup, which panics on any message
		wantPanic(t, none.parse(message(t, "up.test.", 1, addA), 7))
		l := &lookup{}
		l.receive(nil, 7)
		if err := l.panicked(); err != nil {
			t.Error(err)
		}
	})
	t.Run("looking up a host", func(t *testing.T) {
		s := dnstest.NewServer(t)
		s.Set("up.test", dnstest.A(60, "10.0.0.1"))
		n := NewName(Query{Host: "up.test", Port: 443, Servers: []netip.AddrPort{s.Addr()}})
		n.routed = func(netip.Addr) bool { panic("boom") }
		_, err := n.Ask(t.Context())
		wantPanic(t, err)
		n.routed = func(netip.Addr) bool { return true }
		if a, err := n.Ask(t.Context()); err != nil || len(a.Addresses) != 1 {
			t.Errorf("afterward: %v, %v", a, err)
		}
	})
	t.Run("while it connects to a server", func(t *testing.T) {
		_, err := race(t.Context(), 2, func(context.Context, int) (net.Conn, error) { panic("boom") })
		wantPanic(t, err)
	})
}
