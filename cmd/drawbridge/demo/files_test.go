package demo

import (
	"net"
	"testing"
)

func TestIfAPortIsTakenTheKernelChoosesAnother(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	_, port, _ := net.SplitHostPort(lis.Addr().String())
	if got := loopbackAddress(port); got != anyPort {
		t.Errorf("got %s", got)
	}
}
