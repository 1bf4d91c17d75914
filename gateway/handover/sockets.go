package handover

import (
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
)

// A Store keeps copies of descriptors after the process has ended.
type Store interface {
	Stores() bool // false: Add and Remove do nothing
	Add(name string, fd int)
	Remove(name string)
}

// A Listener is a listening socket: a *net.TCPListener or a *unixsocket.Listener.
type Listener interface {
	net.Listener
	syscall.Conn
}

// A Sockets holds the listening sockets that the process inherited, and tracks those that
// it serves. Its methods may be called concurrently. A nil *Sockets inherits nothing and
// stores nothing.
type Sockets struct {
	store Store
	log   hclog.Logger

	mu        sync.Mutex
	inherited []*inherited
	stored    map[uint64]Name   // sockets in the store, by Name.Socket
	foreign   map[uint64]bool   // foreign sockets, by Name.Socket
	kept      map[Listener]Name // listeners that are served
}

// New returns the sockets of a process that inherited the files. It owns the files, and
// closes those that are not listening sockets.
func New(store Store, files []*os.File, log hclog.Logger) *Sockets {
	s := &Sockets{store: store, log: log, stored: map[uint64]Name{}, foreign: map[uint64]bool{}, kept: map[Listener]Name{}}
	for _, f := range files {
		i, err := newInherited(f)
		if err != nil {
			log.Warn("closing an inherited descriptor", "name", f.Name(), "error", err)
			store.Remove(f.Name())
			f.Close()
			continue
		}
		s.inherited = append(s.inherited, i)
		if n := inode(f); i.foreign {
			s.foreign[n] = true
		} else {
			s.stored[n] = i.name
		}
	}
	return s
}

// ListenTCP returns the inherited socket for the address, or a new one. owner names a
// listener or a part of the gateway, and distinguishes sockets on port 0.
func (s *Sockets) ListenTCP(owner, address string) (*net.TCPListener, error) {
	if i := s.take("tcp", address, owner); i != nil {
		l, err := i.listener()
		i.release()
		if err != nil {
			return nil, err
		}
		return l.(*net.TCPListener), nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// ListenUnix returns the inherited socket for the path, or a new one from listen.
func (s *Sockets) ListenUnix(path string, o unixsocket.Options, listen func(string, unixsocket.Options) (*unixsocket.Listener, error)) (*unixsocket.Listener, error) {
	i := s.take("unix", path, "")
	if i == nil {
		return listen(path, o)
	}
	defer i.release()
	l, err := i.listener()
	if err != nil {
		return nil, err
	}
	adopted, err := unixsocket.Adopt(l.(*net.UnixListener), path, i.name.File, o)
	switch {
	case err == nil:
		return adopted, nil
	case i.foreign:
		return nil, err
	}
	s.log.Warn("an inherited socket is unusable: binding a new one", "error", err)
	s.store.Remove(i.name.String())
	return listen(path, o)
}

// take returns an inherited socket for the address, or nil. The caller must release it.
func (s *Sockets) take(network, address, owner string) *inherited {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at := slices.IndexFunc(s.inherited, func(i *inherited) bool { return i.serves(network, address, owner) })
	if at < 0 {
		return nil
	}
	i := s.inherited[at]
	if !i.foreign {
		s.inherited = slices.Delete(s.inherited, at, at+1)
	}
	return i
}

// release closes the descriptor of a socket that was taken, unless it is foreign.
func (i *inherited) release() {
	if !i.foreign {
		i.file.Close()
	}
}

// Keep passes the listener on to the next process. The address is the configured one.
func (s *Sockets) Keep(l Listener, owner, address string) {
	if s == nil {
		return
	}
	n := Name{Network: l.Addr().Network(), Address: address, Owner: owner, Socket: inode(l)}
	if u, ok := l.(*unixsocket.Listener); ok {
		n.File = u.File()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	stored, have := s.stored[n.Socket]
	if have {
		n = stored
	}
	s.kept[l] = n
	if have || s.foreign[n.Socket] || !s.store.Stores() {
		return
	}
	name := n.String()
	if len(name) > maxName {
		s.log.Warn("a socket does not outlive the process: its path is too long for the service manager's store", "address", address)
		return
	}
	s.stored[n.Socket] = n
	if err := control(l, func(fd int) error { s.store.Add(name, fd); return nil }); err != nil {
		s.log.Warn("a socket does not outlive the process", "address", address, "error", err)
	}
}

// Remove stops clients from connecting to the listener. Then the caller closes it.
func (s *Sockets) Remove(l Listener) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.kept[l]
	delete(s.kept, l)
	if _, stored := s.stored[n.Socket]; !ok || !stored {
		return
	}
	delete(s.stored, n.Socket)
	// The address must be free when the caller closes the listener, but the manager may
	// keep its copy of the socket for a moment.
	control(l, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
	s.store.Remove(n.String())
}

// CloseUnused closes the inherited sockets that no listener has taken, because their
// clients would wait forever. Foreign sockets stay open.
func (s *Sockets) CloseUnused() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []*inherited
	for _, i := range s.inherited {
		if i.foreign {
			if !s.serves(i) {
				s.log.Warn("no listener has the address of a socket unit: clients that connect to it wait", "socket", i.String(), "name", i.file.Name())
			}
			open = append(open, i)
			continue
		}
		s.log.Info("closing an inherited socket: no listener has its address", "socket", i.String())
		delete(s.stored, i.name.Socket)
		control(i.file, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_RDWR) })
		s.store.Remove(i.name.String())
		i.file.Close()
	}
	s.inherited = open
}

// serves reports whether a listener serves the socket. The caller holds s.mu.
func (s *Sockets) serves(i *inherited) bool {
	n := inode(i.file)
	for _, name := range s.kept {
		if name.Socket == n {
			return true
		}
	}
	return false
}

// Close closes the inherited sockets that no listener has taken. The copies of other
// processes stay open.
func (s *Sockets) Close() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.inherited {
		i.file.Close()
	}
	s.inherited = nil
}

// pass calls send with all sockets of the process, in batches. last is true in the last
// call. The descriptors are open only during the call.
func (s *Sockets) pass(send func(names []string, fds []int, last bool) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	type socket struct {
		name string
		conn syscall.Conn
	}
	var all []socket
	for l, n := range s.kept {
		if !s.foreign[n.Socket] {
			all = append(all, socket{n.String(), l})
		}
	}
	for _, i := range s.inherited { // foreign sockets keep their own names
		all = append(all, socket{i.file.Name(), i.file})
	}
	for some := range slices.Chunk(all, maxInFlight) {
		var names []string
		var fds []int
		var each func(rest []socket) error
		each = func(rest []socket) error {
			if len(rest) == 0 {
				return send(names, fds, false)
			}
			return control(rest[0].conn, func(fd int) error {
				names, fds = append(names, rest[0].name), append(fds, fd)
				return each(rest[1:])
			})
		}
		if err := each(some); err != nil {
			return err
		}
	}
	return send(nil, nil, true)
}

// PassOn records that another process has the sockets: when this one closes its unix
// sockets, it keeps their files.
func (s *Sockets) PassOn() { s.eachUnix((*unixsocket.Listener).KeepFile) }

// Own records that no other process has the sockets: closing a unix socket removes its
// file, unless the service manager stores the socket.
func (s *Sockets) Own() {
	if s != nil && !s.store.Stores() {
		s.eachUnix((*unixsocket.Listener).RemoveFile)
	}
}

func (s *Sockets) eachUnix(f func(*unixsocket.Listener)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.kept {
		if u, ok := l.(*unixsocket.Listener); ok {
			f(u)
		}
	}
}

// Leave prepares for the end of the process: unix sockets in the manager's store keep
// their files.
func (s *Sockets) Leave() {
	if s == nil || !s.store.Stores() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for l, n := range s.kept {
		if _, stored := s.stored[n.Socket]; !stored {
			continue
		}
		if u, ok := l.(*unixsocket.Listener); ok {
			u.KeepFile()
		}
	}
}

// inode returns the number by which the kernel knows the socket.
func inode(c syscall.Conn) uint64 {
	var st unix.Stat_t
	if err := control(c, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return 0
	}
	return st.Ino
}
