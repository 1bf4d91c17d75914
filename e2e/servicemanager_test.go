package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// A serviceManager replaces systemd for a service: it reads the messages of
// sd_notify(3), stores descriptors, and passes them on at the next start, as
// described in sd_listen_fds(3).
type serviceManager struct {
	t    testing.TB
	conn *net.UnixConn
	path string
	env  []string // additional variables for services

	mu       sync.Mutex
	messages []string
	store    []*os.File // each file has the name of its descriptor
	units    []*os.File // sockets of socket units
}

func newServiceManager(t testing.TB) *serviceManager {
	t.Helper()
	m := &serviceManager{t: t, path: filepath.Join(shortDir(t), "notify")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.serve()
	}()
	t.Cleanup(func() {
		m.conn.Close()
		<-ended
		for _, f := range append(m.store, m.units...) {
			f.Close()
		}
	})
	return m
}

func (m *serviceManager) serve() {
	message, rights := make([]byte, 4096), make([]byte, 1024)
	for {
		n, oob, flags, _, err := m.conn.ReadMsgUnix(message, rights)
		if err != nil {
			return
		}
		if flags&(syscall.MSG_TRUNC|syscall.MSG_CTRUNC) != 0 {
			m.t.Error("a notification is too long")
		}
		m.take(string(message[:n]), received(m.t, rights[:oob]))
	}
}

// received returns the descriptors of a control message.
func received(t testing.TB, rights []byte) []int {
	controls, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		t.Error(err)
		return nil
	}
	var fds []int
	for _, c := range controls {
		some, err := syscall.ParseUnixRights(&c)
		if err != nil {
			t.Error(err)
		}
		fds = append(fds, some...)
	}
	return fds
}

func (m *serviceManager) take(message string, fds []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, message)
	lines := strings.Split(message, "\n")
	name := "stored"
	for _, line := range lines {
		if after, ok := strings.CutPrefix(line, "FDNAME="); ok {
			name = after
		}
	}
	switch {
	case slices.Contains(lines, "FDSTORE=1"):
		if strings.Contains(name, ":") || len(name) > 255 {
			m.t.Errorf("systemd rejects the name %q", name)
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			m.store = append(m.store, os.NewFile(uintptr(fd), name))
		}
		return
	case slices.Contains(lines, "FDSTOREREMOVE=1"):
		m.store = slices.DeleteFunc(m.store, func(f *os.File) bool {
			if f.Name() != name {
				return false
			}
			f.Close()
			return true
		})
	}
	for _, fd := range fds { // the descriptors of a barrier
		syscall.Close(fd)
	}
}

// addUnit adds a socket of a socket unit.
func (m *serviceManager) addUnit(name string, l interface{ File() (*os.File, error) }) {
	m.t.Helper()
	f, err := l.File()
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		m.t.Fatal(err)
	}
	syscall.CloseOnExec(fd)
	m.units = append(m.units, os.NewFile(uintptr(fd), name))
}

// start starts the gateway as a service, and waits until it reports that it is
// ready.
func (m *serviceManager) start(g *gateway) {
	m.t.Helper()
	m.mu.Lock()
	passed := append(slices.Clone(m.units), m.store...)
	m.messages = nil
	m.mu.Unlock()
	var names []string
	for _, f := range passed {
		names = append(names, f.Name())
	}
	// LISTEN_PID must be the PID of the process, so the shell sets it.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$@"`, "sh", program(m.t)}, g.serveArgs()...)...)
	cmd.ExtraFiles = passed
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+m.path, fmt.Sprintf("LISTEN_FDS=%d", len(passed)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	cmd.Env = append(cmd.Env, m.env...)
	g.runs(startCmd(m.t, cmd))
	eventually(m.t, "the service is ready", func() bool { return g.done() || m.got("READY=1") })
	if g.done() {
		m.t.Fatalf("the service ended: %v\n%s", g.err, tail(g.out.String()))
	}
}

// got reports whether a message of the current process contains the line.
func (m *serviceManager) got(line string) bool {
	return slices.ContainsFunc(m.sent(), func(message string) bool {
		return slices.ContainsFunc(strings.Split(message, "\n"), func(l string) bool { return strings.HasPrefix(l, line) })
	})
}

// sent returns the messages of the current process.
func (m *serviceManager) sent() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.messages)
}

// stored returns how many descriptors are in the store.
func (m *serviceManager) stored() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.store)
}
