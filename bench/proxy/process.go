package proxy

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTimeout bounds the time until a proxy listens.
	readyTimeout = 20 * time.Second
	// stopTimeout is how long a proxy may take to end before it is killed.
	stopTimeout = 5 * time.Second
)

// A process is a running proxy. A file receives its output.
type process struct {
	cmd     *exec.Cmd
	logFile string
	ended   chan struct{}
	err     error // why it ended; valid once ended is closed
}

func run(c command, logFile string) (*process, error) {
	out, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(c.path, c.args...)
	cmd.Stdout, cmd.Stderr = out, out
	// If this program dies, its proxies must end too. SIGTERM, because nginx's
	// workers would outlive a killed master.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, logFile: logFile, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// log returns the end of the output.
func (p *process) log() string {
	text, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	const most = 2000
	return strings.TrimSpace(string(text[max(0, len(text)-most):]))
}

// waitReady returns once the process listens on address.
func (p *process) waitReady(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	var d net.Dialer
	for {
		c, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended (%v) with the output: %s", p.err, p.log())
		case <-ctx.Done():
			return fmt.Errorf("it does not listen (%w), output: %s", err, p.log())
		case <-again.C:
		}
	}
}

// stop ends the process and its children, and returns when it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	late := time.NewTimer(stopTimeout)
	defer late.Stop()
	select {
	case <-p.ended:
	case <-late.C:
	}
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // the whole group, including workers
	<-p.ended
}
