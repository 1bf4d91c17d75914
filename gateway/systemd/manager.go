package systemd

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// sendTimeout limits how long a message waits for a service manager that does not read.
const sendTimeout = time.Second

// A Manager is the service manager of this process. Its methods may be called
// concurrently.
type Manager struct {
	socket string // a path, or @ and an abstract name
	stores bool
	log    hclog.Logger
	failed atomic.Bool // the last message could not be sent
}

// Find returns the service manager that the environment names, or nil if it names none.
func Find(log hclog.Logger) *Manager {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	// systemd sets FDSTORE since version 254. An older version may have a store without
	// setting it.
	return &Manager{socket: socket, stores: os.Getenv("FDSTORE") != "0", log: log}
}

// Inherited returns the descriptors that the service manager passed to this process, and
// removes them from the environment, so that no later call and no child process uses
// them. A file's name is the name of its descriptor.
func Inherited() []*os.File { return activation.Files(true) }

// Stores reports whether descriptors outlive the process in the manager's store.
func (m *Manager) Stores() bool { return m != nil && m.stores }

// Add stores a copy of the descriptor under the name.
func (m *Manager) Add(name string, fd int) {
	if m.Stores() {
		m.send("FDSTORE=1\nFDNAME="+name, fd)
	}
}

// Remove removes the descriptors of the name from the store.
func (m *Manager) Remove(name string) {
	if m.Stores() {
		m.send("FDSTOREREMOVE=1\nFDNAME=" + name)
	}
}

// Ready reports that the start, or a reload, is complete. The status is one line
// for people.
func (m *Manager) Ready(status string) { m.send("READY=1\nSTATUS=" + line(status)) }

// Status replaces the status line.
func (m *Manager) Status(status string) { m.send("STATUS=" + line(status)) }

// Reloading reports that a reload has begun. The caller must then call Ready, even if the
// reload fails.
func (m *Manager) Reloading() {
	m.send("RELOADING=1\n" + strings.TrimSuffix(daemon.SdNotifyMonotonicUsec(), "\n"))
}

// Stopping reports that the service has begun to stop.
func (m *Manager) Stopping() { m.send("STOPPING=1\nSTATUS=draining connections") }

// MainPID reports that another process is now the service's main process. It returns when
// the manager has processed the message, because before that, the manager ignores
// messages from the other process.
func (m *Manager) MainPID(pid int) {
	m.send("MAINPID=" + strconv.Itoa(pid))
	m.barrier()
}

// barrier waits until the manager has processed every message so far.
func (m *Manager) barrier() {
	if m == nil {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	m.send("BARRIER=1", int(w.Fd()))
	w.Close()
	r.SetReadDeadline(time.Now().Add(sendTimeout))
	r.Read(make([]byte, 1)) // returns when the manager closes its copy
}

// Watch sends keep-alive messages at the interval that the manager requests, until ctx
// ends.
func (m *Manager) Watch(ctx context.Context) {
	if m == nil {
		return
	}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		m.send("WATCHDOG=1")
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// send sends a message and any descriptors. It logs only the first of consecutive errors,
// because the service works without its manager.
func (m *Manager) send(message string, fds ...int) {
	if m == nil {
		return
	}
	err := m.trySend(message, fds)
	if before := m.failed.Swap(err != nil); err != nil && !before {
		first, _, _ := strings.Cut(message, "\n")
		m.log.Warn("cannot notify the service manager", "message", first, "error", err)
	}
}

func (m *Manager) trySend(message string, fds []int) error {
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), []byte(message), rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// line returns the text without line breaks, which would start another field.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
}
