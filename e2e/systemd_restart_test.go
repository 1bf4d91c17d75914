// As a service of systemd the gateway keeps its listening sockets over a restart. No
// client is refused, and clients that connect while no process runs are served
// later.

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket/sockettest"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
	"google.golang.org/protobuf/proto"
)

func TestARestartBySystemdRefusesNoClient(t *testing.T) {
	t.Parallel()
	m := newServiceManager(t)
	g := newGateway(t, filepath.Join(shortDir(t), "data"), "--ops", "127.0.0.1:0", "--drain-timeout", "1m")
	m.start(g)
	unix := listener("unix", protocolHTTP, "web")
	unix.Address = "unix:" + filepath.Join(shortDir(t), "web.sock")
	onTCP := listener("web", protocolHTTP, "web")
	onTCP.Address = sockettest.Host() + ":0" // no other test takes it after the removal
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), onTCP, unix)
	web, socket := g.address("web"), strings.TrimPrefix(unix.GetAddress(), "unix:")

	load := startNewConnections(t, dialers(map[string]string{web: "tcp", socket: "unix"}))
	writes := g.startWrites()
	restarts, began := often(t, "DRAWBRIDGE_RESTARTS", 5), time.Now()
	for range restarts {
		served := load.served.Load()
		g.stop()
		m.start(g)
		if now := g.address("web"); now != web {
			t.Fatalf("the listener moved from %s to %s", web, now)
		}
		eventually(t, "clients are served again", func() bool { return load.served.Load() > served+10 })
	}
	load.stop()
	writes.stop()
	t.Logf("%d restarts in %v, %d new connections, %d failed, %d acknowledged writes, %d refused because of a restart",
		restarts, time.Since(began).Round(time.Second), load.served.Load(), load.failed.Load(), writes.acknowledged.Load(), writes.refused.Load())
	if got, want := g.getStatus().GetRevision(), writes.last.Load(); got < want || want == 0 {
		t.Errorf("revision %d is live, and %d was acknowledged", got, want)
	}
	eventually(t, "five descriptors are stored", func() bool { return m.stored() == 5 }) // admin, upgrade, ops, web, unix

	g.remove(ref(adminv1.Kind_KIND_LISTENER, "web"))
	if _, err := net.Dial("tcp", web); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the delete of the listener: %v", err)
	}
	eventually(t, "its descriptor is removed from the store", func() bool { return m.stored() == 4 })
	g.stop()
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the file of the unix socket is gone: %v", err)
	}
	m.start(g)
	if g.listener("web") != nil {
		t.Error("the deleted listener is back")
	}
}

func TestClientsThatConnectWhileNoProcessRunsAreServed(t *testing.T) {
	t.Parallel()
	m := newServiceManager(t)
	g := newGateway(t, filepath.Join(shortDir(t), "data"))
	m.start(g)
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), listener("web", protocolHTTP, "web"))
	web := g.address("web")
	eventually(t, "the listener's socket is stored", func() bool { return m.stored() == 3 }) // admin, upgrade, web
	g.kill()
	var parked sync.WaitGroup
	for range 50 {
		conn, err := net.Dial("tcp", web)
		if err != nil {
			t.Fatal(err)
		}
		parked.Go(func() {
			if err := askOnce(conn); err != nil {
				t.Error(err)
			}
		})
	}
	m.start(g)
	parked.Wait()
}

func TestTheServiceManagerLearnsTheState(t *testing.T) {
	t.Parallel()
	m := newServiceManager(t)
	m.env = []string{"WATCHDOG_USEC=20000"}
	config := writeFile(t, filepath.Join(t.TempDir(), "drawbridge.yaml"), []byte("kind: Upstream\nname: web\nendpoints: [{address: 127.0.0.1:1}]\nplaintext: {}\n"))
	g := newGateway(t, filepath.Join(shortDir(t), "data"), "--config", config)
	m.start(g)
	if !m.got("STATUS=version") {
		t.Errorf("no status: %q", m.sent())
	}
	eventually(t, "two signs of life", func() bool {
		return strings.Count(strings.Join(m.sent(), "\n"), "WATCHDOG=1") >= 2
	})
	for _, c := range []struct{ config, status string }{{"kind: Nonsense\n", "the last reload failed"}, {"kind: Upstream\nname: web\nendpoints: [{address: 127.0.0.1:2}]\nplaintext: {}\n", "serves revision 2"}} {
		writeFile(t, config, []byte(c.config))
		from := len(m.sent())
		g.signal(syscall.SIGHUP)
		var sent string
		eventually(t, "the reload ends", func() bool {
			sent = strings.Join(m.sent()[from:], "\n")
			return strings.Contains(sent, "READY=1")
		})
		if !strings.Contains(sent, "RELOADING=1\nMONOTONIC_USEC=") || !strings.Contains(sent, c.status) {
			t.Errorf("after %q: %q", c.config, sent)
		}
	}
	g.stop()
	eventually(t, "the service manager learns that the service stops", func() bool { return m.got("STOPPING=1") })
}

func TestSocketUnitsPassTheirSockets(t *testing.T) {
	t.Parallel()
	m := newServiceManager(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(shortDir(t), "unit.sock")
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	m.addUnit("web", tcp.(*net.TCPListener))
	m.addUnit("web", unix)
	tcp.Close()
	unix.SetUnlinkOnClose(false)
	unix.Close()

	g := newGateway(t, filepath.Join(shortDir(t), "data"))
	m.start(g)
	web, onUnix := listener("web", protocolHTTP, "web"), listener("unix", protocolHTTP, "web")
	web.Address, onUnix.Address = tcp.Addr().String(), "unix:"+path
	g.apply(plainUpstream("web", serveHTTP(t, respondsWith("web"))), web)
	for range 2 {
		if code, body := get(t, "http://"+web.GetAddress()+"/"); code != 200 || body != "web" {
			t.Errorf("%d %q", code, body)
		}
		// A listener may be removed from a unit's socket and be added again.
		g.remove(ref(adminv1.Kind_KIND_LISTENER, "web"))
		g.apply(web)
	}
	// Every user may write to the socket's file, but the listener admits only
	// certain users.
	if _, err := g.admin.Apply(longContext(t), &adminv1.ApplyRequest{Resources: wrap(t, []proto.Message{onUnix})}); err == nil || !strings.Contains(err.Error(), "SocketMode=0600") {
		t.Errorf("a socket that everybody may connect to: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	g.apply(onUnix)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := askOnce(conn); err != nil {
		t.Error(err)
	}
	g.stop()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the file of the socket unit is gone: %v", err)
	}
}

// newConnections are clients that connect repeatedly, for one request each.
type newConnections struct {
	t      testing.TB
	served atomic.Int64
	failed atomic.Int64
	end    context.CancelFunc
	all    sync.WaitGroup
}

// dialers returns a function for each address and its network. With "unix-connect" it
// only makes a connection and returns nil, because the protocol is not HTTP.
func dialers(addresses map[string]string) []func() (net.Conn, error) {
	var all []func() (net.Conn, error)
	for address, network := range addresses {
		all = append(all, func() (net.Conn, error) {
			conn, err := net.DialTimeout(strings.TrimSuffix(network, "-connect"), address, testTimeout)
			if err == nil && strings.HasSuffix(network, "-connect") {
				return nil, conn.Close()
			}
			return conn, err
		})
	}
	return all
}

// startNewConnections starts four clients of each dialer. Each failure fails the test.
func startNewConnections(t testing.TB, dial []func() (net.Conn, error)) *newConnections {
	ctx, end := context.WithCancel(context.Background())
	c := &newConnections{t: t, end: end}
	for _, d := range dial {
		for range 4 {
			c.all.Go(func() {
				for ctx.Err() == nil {
					conn, err := d()
					if err == nil && conn != nil {
						err = askOnce(conn)
					}
					if err != nil {
						c.failed.Add(1)
						t.Errorf("a new connection failed: %v", err)
						return
					}
					c.served.Add(1)
					time.Sleep(5 * time.Millisecond) // limits the rate
				}
			})
		}
	}
	t.Cleanup(c.stop)
	return c
}

func (c *newConnections) stop() {
	c.end()
	c.all.Wait()
}

// askOnce makes one request on a new connection, and closes the connection.
func askOnce(conn net.Conn) error {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer), fmt.Sprintf("HTTP/1.1 %d ", http.StatusOK)) {
		return fmt.Errorf("the answer is %q", answer)
	}
	return nil
}

// serveHTTP serves handler without TLS.
func serveHTTP(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.Listener.Addr().String()
}
