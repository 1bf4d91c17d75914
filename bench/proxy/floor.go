package proxy

import (
	"context"
	"fmt"
	"net"
	"runtime"

	"github.com/drawbridge-gateway/drawbridge/bench/floor"
)

// Floor relays with the least work that this machine allows; see package floor. It
// runs this program with FloorCommand as its first argument.
type Floor struct {
	// Program is the path of this program.
	Program string
}

// FloorCommand is the argument that runs this program as the floor.
const FloorCommand = "floor"

// Name implements Kind.
func (Floor) Name() string { return "floor" }

// Version implements Kind.
func (Floor) Version(context.Context) (string, error) {
	return "one read and one write for each message or 256 KiB, AES-GCM of " + runtime.Version(), nil
}

// Unsupported implements Kind.
func (Floor) Unsupported(s Service) string {
	switch {
	case s.Admin:
		return noAdmin
	case s.Postgres:
		return noPostgres
	case s.NoResumption || s.Warm > 0:
		return "makes handshakes like any program"
	case s.ListenTLS:
		return "listens for plaintext only"
	case s.UpstreamHTTP2:
		return "translates no protocols"
	}
	return ""
}

func (f Floor) command(w work) (command, error) {
	return command{path: f.Program, args: tunnelArgs(FloorCommand, w)}, nil
}

// ServeFloor runs the floor until its process is ended.
func ServeFloor(args []string) error {
	t, err := parseTunnel(FloorCommand, args)
	if err != nil {
		return err
	}
	l, ok := t.listener.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("the floor listens for plaintext only")
	}
	return floor.Serve(l, t.backend, t.config)
}
