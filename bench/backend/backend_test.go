package backend

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bench/keys"
)

// Every backend has an address.
func TestEveryBackendHasAnAddress(t *testing.T) {
	k, err := keys.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, start := range map[string]func(*tls.Config) (*Backend, error){"bytes": Start, "HTTP": StartHTTP, "gRPC": StartGRPC} {
		b, err := start(k.BackendTLS())
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", b.Address())
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			c.Close()
		}
		if err := b.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
