package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A namespace is a network or a mount namespace that belongs to one test. It ends with the
// test and its processes, with everything in it.
type namespace struct {
	t      testing.TB
	holder *process // keeps the namespace
	flag   string   // the option of nsenter
	path   string
}

// newNamespace returns a namespace of a kind, "net" or "mount".
func newNamespace(t testing.TB, kind string) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can create networks and mount file systems")
	}
	need(t, "nsenter")
	// A thread of this program could create the namespace too. But if that thread ended, the
	// kernel would kill every process that the thread has started for other tests.
	p := start(t, need(t, "unshare"), "--"+kind, "sh", "-c", "echo created; exec sleep infinity")
	eventually(t, "the namespace exists", func() bool { return p.out.contains("created") || p.done() })
	if p.done() { // as in a container without privileges
		t.Skip("cannot create a namespace: " + p.out.String())
	}
	file := map[string]string{"net": "net", "mount": "mnt"}[kind]
	return &namespace{t, p, "--" + kind, fmt.Sprintf("/proc/%d/ns/%s", p.cmd.Process.Pid, file)}
}

// through returns the command line that runs another one in the namespace.
func (n *namespace) through(line ...string) []string {
	return append([]string{"nsenter", n.flag + "=" + n.path, "--"}, line...)
}

// run runs a program in the namespace to its end. It must succeed.
func (n *namespace) run(name string, args ...string) string {
	n.t.Helper()
	line := n.through(append([]string{name}, args...)...)
	out, err := exec.CommandContext(longContext(n.t), line[0], line[1:]...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// do runs f on a thread in the network. Sockets that f creates stay in the network.
func (n *namespace) do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := os.Open(n.path)
	if err != nil {
		return err
	}
	defer other.Close()
	if err := unix.Setns(int(other.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // other tests would continue in this network
		}
	}()
	return f()
}

// newNetwork returns a network that has only a loopback interface.
func newNetwork(t testing.TB) *namespace {
	t.Helper()
	need(t, "ip")
	n := newNamespace(t, "net")
	n.run("ip", "link", "set", "lo", "up")
	return n
}

// listen listens on a port of 127.0.0.1 in the network.
func (n *namespace) listen() (l net.Listener) {
	n.t.Helper()
	if err := n.do(func() (err error) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	return l
}

// dial connects to an address in the network.
func (n *namespace) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = n.do(func() error {
		conn, err = (&net.Dialer{Timeout: testTimeout}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// connect connects two networks by a link with the addresses 10.0.LINK.1 and 10.0.LINK.2. The
// functions that it returns cut the link, and heal it. While it is cut, the second network loses all
// packets silently.
func connect(one, two *namespace, link int) (cut, heal func()) {
	one.t.Helper()
	at, to := fmt.Sprint("link", link), fmt.Sprintf("10.0.%d.", link)
	line := one.through("ip", "link", "add", at, "type", "veth", "peer", "name", at, "netns", two.path)
	if out, err := exec.CommandContext(longContext(one.t), line[0], line[1:]...).CombinedOutput(); err != nil { // as in a kernel without veth
		one.t.Skipf("cannot connect networks: %v: %s", err, out)
	}
	one.run("ip", "address", "add", to+"1/24", "dev", at)
	two.run("ip", "address", "add", to+"2/24", "dev", at)
	one.run("ip", "link", "set", at, "up")
	two.run("ip", "link", "set", at, "up")
	return func() { one.run("ip", "link", "set", at, "down") }, func() { one.run("ip", "link", "set", at, "up") }
}
