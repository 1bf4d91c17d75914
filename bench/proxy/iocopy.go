package proxy

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"runtime"
)

// IOCopy is the simplest tunnel in Go, similar to Ghostunnel: crypto/tls, a
// goroutine for each direction with io.CopyBuffer and 32 KiB, and a full
// handshake for each connection. It runs this program with IOCopyCommand as
// its first argument.
type IOCopy struct {
	// Program is the path of this program.
	Program string
}

// IOCopyCommand is the argument that runs this program as the tunnel.
const IOCopyCommand = "iocopy"

// Name implements Kind.
func (IOCopy) Name() string { return "iocopy" }

// Version implements Kind.
func (IOCopy) Version(context.Context) (string, error) {
	return "io.Copy both ways with 32 KiB, " + runtime.Version(), nil
}

// Unsupported implements Kind.
func (IOCopy) Unsupported(s Service) string {
	switch {
	case s.Admin:
		return noAdmin
	case s.Postgres:
		return noPostgres
	case s.HTTP:
		return "speaks no HTTP"
	}
	return ""
}

func (i IOCopy) command(w work) (command, error) {
	return command{path: i.Program, args: tunnelArgs(IOCopyCommand, w)}, nil
}

// ServeIOCopy runs the tunnel until its process is ended.
func ServeIOCopy(args []string) error {
	t, err := parseTunnel(IOCopyCommand, args)
	if err != nil {
		return err
	}
	for {
		client, err := t.listener.Accept()
		if err != nil {
			return err
		}
		go tunnel(client, t.backend, t.config)
	}
}

// tunnel owns client.
func tunnel(client net.Conn, backend string, config *tls.Config) {
	defer client.Close()
	server, err := tls.Dial("tcp", backend, config)
	if err != nil {
		return
	}
	defer server.Close()
	back := make(chan struct{})
	go func() {
		defer close(back)
		pump(client, server)
	}()
	pump(server, client)
	<-back
}

// pump copies until from ends, and forwards the end of the stream.
func pump(to, from net.Conn) {
	// Hide the other methods of the connections, because otherwise CopyBuffer
	// would not use the buffer.
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
