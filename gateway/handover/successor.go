package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A Program is the program of a new process.
type Program struct {
	Path   string
	Args   []string // without the program's name
	Env    []string // in addition to the environment of this process
	Stdout *os.File
	Stderr *os.File
}

// A Successor is a new process that will replace this one.
type Successor struct {
	peer
	cmd   *exec.Cmd
	ended chan struct{} // closed after the process has ended and cmd.ProcessState is set
	live  bool          // the new process reads the live state
}

// notInherited lists the environment variables that a new process must not inherit.
var notInherited = []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", descriptorVariable}

// Start starts the program. The caller must call Kill, or Release once the new process
// has taken over.
func Start(p Program) (*Successor, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "upgrade")
	defer theirs.Close()
	ours, err := newPeer(os.NewFile(uintptr(pair[0]), "upgrade"))
	if err != nil {
		return nil, err
	}
	// os/exec resets the file limit of a new process to the original one, unless this
	// process has set it. Setting the limit to its current value makes the new
	// process inherit it.
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	s := &Successor{peer: ours, cmd: exec.Command(p.Path, p.Args...), ended: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.ExtraFiles = p.Stdout, p.Stderr, []*os.File{theirs}
	s.cmd.Env = append(append(environment(), p.Env...), descriptorVariable+"=3")
	if err := s.cmd.Start(); err != nil {
		ours.Close()
		if errors.Is(err, syscall.ENOEXEC) {
			err = fmt.Errorf("%w: it is not a program for this machine", err)
		}
		return nil, err
	}
	go func() {
		defer close(s.ended)
		_ = s.cmd.Wait() // ProcessState has the result
	}()
	return s, nil
}

// environment returns the environment that both processes share.
func environment() []string {
	var out []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		kept := true
		for _, n := range notInherited {
			kept = kept && n != name
		}
		if kept {
			out = append(out, v)
		}
	}
	return out
}

// PID returns the process's ID.
func (s *Successor) PID() int { return s.cmd.Process.Pid }

// Hello waits until the new process needs the store, and returns its version.
func (s *Successor) Hello(ctx context.Context) (version string, err error) {
	m, err := s.await(ctx, hello)
	s.live = m.Live
	return m.Text, err
}

// ReadsLive reports whether the new process reads the live state. Older versions do not.
func (s *Successor) ReadsLive() bool { return s.live }

// Pass passes on the sockets and the TLS ticket keys. The store must be closed.
func (s *Successor) Pass(ctx context.Context, sockets *Sockets, tickets []byte) error {
	defer s.endWith(ctx)()
	for some := range slices.Chunk(tickets, maxBytes) {
		if err := s.send(message{Type: socketList, Tickets: some}); err != nil {
			return s.explain(ctx, err)
		}
	}
	return s.explain(ctx, sockets.pass(func(names []string, fds []int, last bool) error {
		return s.send(message{Type: socketList, Names: names, Last: last}, fds...)
	}))
}

// Ready waits until the new process has bound its sockets, and returns the resources that
// are down in it.
func (s *Successor) Ready(ctx context.Context) (down map[string]string, err error) {
	down = map[string]string{}
	for last := false; !last; {
		m, err := s.await(ctx, downList)
		if err != nil {
			return nil, err
		}
		for resource, reason := range m.Down {
			down[resource] = reason
		}
		last = m.Last
	}
	return down, nil
}

// Accept passes on the live state, which must be empty unless ReadsLive, tells the new
// process to accept connections, and waits until it does.
func (s *Successor) Accept(ctx context.Context, live []byte) error {
	if err := s.passLive(ctx, live); err != nil {
		return err
	}
	if err := s.tell(ctx, accept); err != nil {
		return err
	}
	_, err := s.await(ctx, accepting)
	return err
}

func (s *Successor) passLive(ctx context.Context, live []byte) error {
	defer s.endWith(ctx)()
	for some := range slices.Chunk(live, maxBytes) {
		if err := s.send(message{Type: liveState, State: some}); err != nil {
			return s.explain(ctx, err)
		}
	}
	return nil
}

// Finish tells the new process that it owns the store and the service.
func (s *Successor) Finish(ctx context.Context) error { return s.tell(ctx, finish) }

// Release tells the new process that the hand-over is complete, and waits up to
// serveTimeout until the new process serves.
func (s *Successor) Release() {
	defer s.Close()
	s.SetDeadline(time.Now().Add(serveTimeout))
	_ = s.CloseWrite()
	_, _, _ = s.receive("") // returns when the new process closes its side
}

// serveTimeout limits the wait of Release. The new process has taken over even if the
// time passes.
const serveTimeout = 5 * time.Second

func (s *Successor) tell(ctx context.Context, what string) error {
	defer s.endWith(ctx)()
	return s.explain(ctx, s.send(message{Type: what}))
}

func (s *Successor) await(ctx context.Context, what string) (message, error) {
	defer s.endWith(ctx)()
	m, files, err := s.receive(what)
	for _, f := range files { // a new process sends no descriptors
		f.Close()
	}
	return m, s.explain(ctx, err)
}

// endTimeout is how long explain waits for the end of a process that closed its
// connection.
const endTimeout = time.Second

// explain adds why a message could not be sent or received.
func (s *Successor) explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("the new process was not ready in time: %w", context.Cause(ctx))
	case !errors.Is(err, errGone) && !isBroken(err):
		return err
	}
	select {
	case <-s.ended:
		return fmt.Errorf("the new process ended before it was ready: %v; its output is in the log", s.cmd.ProcessState)
	case <-time.After(endTimeout):
		return errors.New("the new process closed its connection before it was ready: it runs a different program or version")
	}
}

// Kill kills the process, and waits until it or ctx has ended.
func (s *Successor) Kill(ctx context.Context) {
	_ = s.cmd.Process.Kill()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
	// Close the connection last: a new process that loses its predecessor continues alone.
	s.Close()
}

// isBroken reports whether the other end of a connection is closed.
func isBroken(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}
