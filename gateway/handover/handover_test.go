package handover

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	"github.com/drawbridge-gateway/drawbridge/gateway/unixsocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A memory stores descriptors until the next process takes them.
type memory map[string]*os.File

func (memory) Stores() bool { return true }

func (m memory) Add(name string, fd int) {
	fd, _ = syscall.Dup(fd)
	m[name] = os.NewFile(uintptr(fd), name)
}

func (m memory) Remove(name string) {
	m[name].Close()
	delete(m, name)
}

// pass returns copies of the descriptors, like the ones that a new process
// inherits.
func (m memory) pass() []*os.File {
	var all []*os.File
	for name, f := range m {
		fd, _ := syscall.Dup(int(f.Fd()))
		all = append(all, os.NewFile(uintptr(fd), name))
	}
	return all
}

func TestNamesAreValidForSystemd(t *testing.T) {
	for _, n := range []Name{
		{Network: "tcp", Address: "[::1]:8080", Owner: "listener web", Socket: 1},
		{Network: "unix", Address: "/run/a;b%3A\n ü.sock", Owner: "admin", Socket: 18446744073709551615, File: "fe01.42"},
	} {
		text := n.String()
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			t.Errorf("%q", text)
		}
		if back, ok := ParseName(text); !ok || back != n {
			t.Errorf("%q is %v, want %v", text, back, n)
		}
	}
	for _, other := range []string{"", "web", "LISTEN_FD_3", "drawbridge;tcp", "drawbridge;tcp;%4;x;1;", "drawbridge;tcp;a;b;-1;", "nginx;tcp;a;b;1;"} {
		if n, ok := ParseName(other); ok {
			t.Errorf("%q is %v", other, n)
		}
	}
}

func TestTheNextProcessGetsTheSockets(t *testing.T) {
	store := memory{}
	path := filepath.Join(t.TempDir(), "s")
	first := New(store, nil, hclog.NewNullLogger())
	fixed, _ := first.ListenTCP("listener web", "127.0.0.1:0")
	first.Keep(fixed, "listener web", "127.0.0.1:0")
	other, _ := first.ListenTCP("ops", "127.0.0.1:0")
	first.Keep(other, "ops", "127.0.0.1:0")
	sock, err := first.ListenUnix(path, unixsocket.Options{}, unixsocket.Bind)
	if err != nil {
		t.Fatal(err)
	}
	first.Keep(sock, "listener unix", path)
	if len(store) != 3 {
		t.Fatalf("%d descriptors are stored", len(store))
	}
	parked, err := net.Dial("tcp", fixed.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer parked.Close()
	first.Leave()
	for _, l := range []net.Listener{fixed, other, sock} {
		l.Close()
	}

	second := New(store, store.pass(), hclog.NewNullLogger())
	for range 2 { // in the second round, another listener has the address
		l, err := second.ListenTCP("listener web", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		second.Keep(l, "listener web", "127.0.0.1:0")
		if l.Addr().String() == fixed.Addr().String() {
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		} else if l.Addr().String() == other.Addr().String() {
			t.Error("it has the socket of another owner")
		}
		second.Remove(l)
		l.Close()
	}
	again, err := second.ListenUnix(path, unixsocket.Options{}, unixsocket.Bind)
	if err != nil {
		t.Fatal(err)
	}
	second.Keep(again, "listener unix", path)
	if conn, err := net.Dial("unix", path); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	again.RemoveFile()
	second.Remove(again)
	again.Close()
	second.CloseUnused()
	if len(store) != 0 {
		t.Errorf("in the store are still %v", store)
	}
	for _, gone := range []string{fixed.Addr().String(), other.Addr().String()} {
		if _, err := net.Dial("tcp", gone); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file of the socket is still there")
	}
}

// The address of a removed socket must be free, although the manager may still hold
// a copy of the socket.
func TestTheAddressOfARemovedSocketIsFree(t *testing.T) {
	store := memory{}
	s := New(store, nil, hclog.NewNullLogger())
	address := sockettest.Host() + ":0"
	l, err := s.ListenTCP("ops", address)
	if err != nil {
		t.Fatal(err)
	}
	s.Keep(l, "ops", address)
	copies := store.pass()
	defer copies[0].Close()
	s.Remove(l)
	l.Close()
	if _, err := net.Dial("tcp", l.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a client: %v", err)
	}
	again, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestOnlyListeningSocketsAreInherited(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[1])
	s := New(noStore{}, []*os.File{r, os.NewFile(uintptr(pair[0]), "connected")}, hclog.NewNullLogger())
	if len(s.inherited) != 0 {
		t.Errorf("%v", s.inherited)
	}
	if _, err := r.Read(nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the descriptor is open: %v", err)
	}
}

type noStore struct{}

func (noStore) Stores() bool    { return false }
func (noStore) Add(string, int) {}
func (noStore) Remove(string)   {}

func TestAForeignSocketServesTheSameAddressesOnly(t *testing.T) {
	for _, c := range []struct {
		network, bound, wanted string
		serves                 bool
	}{
		{"tcp", "127.0.0.1:0", "127.0.0.1:%s", true},
		{"tcp", "127.0.0.1:0", ":%s", false},
		{"tcp4", "0.0.0.0:0", "0.0.0.0:%s", true},
		{"tcp4", "0.0.0.0:0", ":%s", false}, // clients over IPv6 would be refused
		{"tcp", ":0", ":%s", true},
		{"tcp", ":0", "0.0.0.0:%s", true},
		{"tcp", ":0", "127.0.0.1:%s", false},
		{"tcp", "127.0.0.1:0", "127.0.0.1:0", false},
	} {
		l, err := net.Listen(c.network, c.bound)
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		wanted := strings.ReplaceAll(c.wanted, "%s", port)
		s := New(noStore{}, []*os.File{f}, hclog.NewNullLogger())
		if i := s.take("tcp", wanted, "ops"); (i != nil) != c.serves {
			t.Errorf("%s for %s: %v", l.Addr(), wanted, i)
		}
		s.Close()
		l.Close()
	}
}
