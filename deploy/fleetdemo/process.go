package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopTimeout bounds how long a process may take to stop.
const stopTimeout = 20 * time.Second

// A process is a member of etcd or a gateway. It may be killed and started again.
type process struct {
	name string
	dir  string // the working directory; the log is in it
	path string
	args []string

	cmd    *exec.Cmd // nil: not running
	exited chan struct{}
}

func (p *process) start() error {
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = p.dir, log, log, ownGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	p.cmd, p.exited = cmd, exited
	return nil
}

func (p *process) logFile() string { return filepath.Join(p.dir, p.name+".log") }

// kill ends the process at once.
func (p *process) kill() { p.end(syscall.SIGKILL) }

// stop lets the process end, and kills it if it takes too long.
func (p *process) stop() { p.end(syscall.SIGTERM) }

func (p *process) end(s syscall.Signal) {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	p.cmd = nil
}

// lastLines returns the end of the log.
func (p *process) lastLines() string {
	text, _ := os.ReadFile(p.logFile())
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return fmt.Sprintf("the log of %s ends with:\n%s", p.name, bytes.Join(lines[max(len(lines)-10, 0):], []byte("\n")))
}
