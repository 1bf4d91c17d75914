package sockettest

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

func TestAFreeAddressStaysFree(t *testing.T) {
	address := Free(t)
	if c, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("%v, %v", c, err)
	}
	host, port, _ := net.SplitHostPort(address)
	if host == "127.0.0.1" {
		t.Skip("127.0.0.1 is the only loopback address of this machine")
	}
	// A test that uses up the kernel's ports would take too long. Instead, it listens on the
	// same port at two other addresses, which shows that each address has its own ports.
	for range 2 {
		l, err := net.Listen("tcp", net.JoinHostPort(Host(), port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
}
