package upgrade

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge-gateway/drawbridge/gateway"
	"github.com/drawbridge-gateway/drawbridge/gateway/handover"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
)

// A Server performs upgrades of a gateway.
type Server struct {
	Gateway *gateway.Gateway
	Program handover.Program
	Sockets *handover.Sockets
	Allowed func(program string) error // an error says why the process cannot run the program; nil: it can run every program
	Log     hclog.Logger

	listener *unixsocket.Listener // nil: the socket could not be bound
}

// requestTimeout limits the time for a caller to send its request, and the time to read
// the answer.
const requestTimeout = 5 * time.Second

// Listen binds the socket in the data directory. If that fails, signals still work. The
// caller must call Run or Close.
func (s *Server) Listen(dataDir string) {
	path := filepath.Join(dataDir, socketName)
	l, err := s.Sockets.ListenUnix(path, unixsocket.Options{}, unixsocket.Listen)
	if err != nil {
		s.Log.Warn("the upgrade command cannot reach this gateway; SIGUSR2 can", "error", err)
		return
	}
	s.Sockets.Keep(l, "upgrade", path)
	s.listener = l
}

// Close closes the socket.
func (s *Server) Close() {
	if s.listener != nil {
		s.listener.Close()
	}
}

// Run serves requests and signals until ctx ends or another process has taken over.
func (s *Server) Run(ctx context.Context, signals <-chan os.Signal) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var calls sync.WaitGroup
	defer calls.Wait()
	defer s.Close()
	if s.listener != nil {
		calls.Go(func() { s.accept(ctx, s.listener, &calls) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Gateway.Replaced():
			return
		case <-signals:
			calls.Go(func() { _, _ = s.upgrade(ctx, "") }) // upgrade logs its result
		}
	}
}

func (s *Server) accept(ctx context.Context, l net.Listener, calls *sync.WaitGroup) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				s.Log.Error("the upgrade command can no longer reach this gateway; SIGUSR2 can", "error", err)
			}
			return
		}
		calls.Go(func() {
			defer conn.Close()
			s.answer(ctx, conn)
		})
	}
}

func (s *Server) answer(ctx context.Context, conn net.Conn) {
	conn.SetDeadline(time.Now().Add(requestTimeout))
	var r request
	if err := json.NewDecoder(conn).Decode(&r); err != nil {
		return
	}
	a := answer{OldPID: os.Getpid()}
	up, err := s.upgrade(ctx, r.Binary)
	switch {
	case errors.Is(err, gateway.ErrReplaced):
		a.Again = true
	case err != nil:
		a.Error = err.Error()
	default:
		a.PID, a.Version = up.PID, up.Version
	}
	conn.SetDeadline(time.Now().Add(requestTimeout))
	_ = json.NewEncoder(conn).Encode(a) // the caller may have disconnected
}

func (s *Server) upgrade(ctx context.Context, binary string) (gateway.Upgraded, error) {
	p := s.Program
	if binary != "" {
		p.Path = binary
	}
	if s.Allowed != nil {
		if err := s.Allowed(p.Path); err != nil {
			s.Log.Error("upgrade failed: this process continues", "program", p.Path, "error", err)
			return gateway.Upgraded{}, err
		}
	}
	return s.Gateway.Upgrade(ctx, p)
}

// ProgramPath returns the path of the program that this process was started with. It must
// be called before the working directory changes. An installation replaces the file at
// this path, whereas /proc/self/exe would refer to the old file.
func ProgramPath(arg0 string) (string, error) {
	if strings.Contains(arg0, string(filepath.Separator)) {
		return filepath.Abs(arg0)
	}
	if found, err := exec.LookPath(arg0); err == nil {
		return filepath.Abs(found)
	}
	return os.Executable()
}

// A PIDFile is the path of a file with the ID of the serving process. "" means no file.
type PIDFile string

// Write writes this process's ID.
func (p PIDFile) Write() error {
	if p == "" {
		return nil
	}
	fresh := string(p) + ".new"
	if err := os.WriteFile(fresh, p.content(), 0o644); err != nil {
		return fmt.Errorf("--pid-file: %w", err)
	}
	return os.Rename(fresh, string(p))
}

// Remove removes the file if it contains this process's ID.
func (p PIDFile) Remove() {
	if p == "" {
		return
	}
	if text, err := os.ReadFile(string(p)); err == nil && bytes.Equal(text, p.content()) {
		_ = os.Remove(string(p)) // the next process replaces the file
	}
}

func (PIDFile) content() []byte { return []byte(strconv.Itoa(os.Getpid()) + "\n") }
