// Package child runs the programs that are measured.
//
// A Process owns the process that it started and the children of that process until
// Stop.
package child

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Process is a running program. A file receives its output.
type Process struct {
	cmd     *exec.Cmd
	logFile string
	ended   chan struct{}
	err     error // the reason of its end; valid once ended is closed
}

// Start starts the program at path. logFile is created or replaced.
func Start(path string, args []string, logFile string) (*Process, error) {
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	// If this program dies, its children must end too. The signal is SIGTERM,
	// because nginx's workers would outlive a killed master.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, logFile: logFile, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// PID returns the ID of the process, which is also the ID of its process group.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Log returns the end of the output.
func (p *Process) Log() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	const most = 2000
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// Await calls ready again and again until it returns nil. It returns an error if the
// process or ctx ends first.
func (p *Process) Await(ctx context.Context, every time.Duration, ready func(context.Context) error) error {
	again := time.NewTicker(every)
	defer again.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended (%v) with the output: %s", p.err, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("it is not ready (%w), output: %s", err, p.Log())
		case <-again.C:
		}
	}
}

// Stop ends the process and its children, and returns when the process has ended. It
// kills processes that have not ended within timeout, and then returns an error.
func (p *Process) Stop(timeout time.Duration) (err error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case <-p.ended:
	case <-deadline.C:
		err = fmt.Errorf("%s did not end in %v", p.cmd.Path, timeout)
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // the whole group, including workers
	<-p.ended
	return err
}

// FreePort returns a port of 127.0.0.1 that is currently unused. Another program may take
// it first: use FreeAddress where the host does not matter.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// FreeAddress returns a loopback address and a port on which nothing listens, for a program
// that cannot let the kernel choose. Where the machine has all of 127.0.0.0/8, the address is
// a random one. The kernel chooses ports for each address, so nothing else gets the port
// before the program binds it.
func FreeAddress() (string, error) {
	host := fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
