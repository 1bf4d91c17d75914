package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bench/proxy"
)

// The tests start this program itself as the tunnel and the floor.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == proxy.IOCopyCommand {
		exit(proxy.ServeIOCopy(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == proxy.FloorCommand {
		exit(proxy.ServeFloor(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
