package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// bare returns a TCP listener without an upstream, which closes its connections.
func bare(name, address string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: address, Protocol: adminv1.Protocol_PROTOCOL_TCP}
}

func deletes(name string) []store.Delete {
	return []store.Delete{{Kind: adminv1.Kind_KIND_LISTENER, Name: name}}
}

func connects(address string) bool {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	// Without a listener, a TCP connection is reset. Connecting to a unix socket
	// fails while its queue is full.
	return err == nil || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EAGAIN)
}

// After the answer to a delete, even a busy listener accepts no more clients, and
// its address can be used at once.
func TestAnAcknowledgedDeleteIsDone(t *testing.T) {
	g := start(t, "")
	for name, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": "unix:" + filepath.Join(shortDir(t), "l.sock")} {
		t.Run(name, func(t *testing.T) {
			g.put(bare("l", address))
			address := g.address("l")
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
							connects(address)
						}
					}
				})
			}
			for range 25 {
				g.apply(store.Edit{Deletes: deletes("l")})
				if connects(address) {
					t.Error("a client connected after the delete was acknowledged")
				}
				g.put(bare("l", address))
				if !connects(address) {
					t.Error("no client can connect after the put was acknowledged")
				}
			}
			close(stop)
			clients.Wait()
		})
	}
}

// Every revision hands hundreds of listeners to new owners, on one busy processor, so
// that many are handed over again before their last owner has ended. Each owner ends,
// the last owners accept, and the gateway can stop.
func TestListenersAreHandedOverInQuickSuccession(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const listeners, revisions = 200, 8
	g := start(t, "", func(o *Options) { o.Logger = nil })
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 2 {
		busy.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		})
	}
	defer busy.Wait()
	defer close(stop)
	name := func(revision, i int) string { return fmt.Sprintf("l%d-%d", revision%2, i) }
	addresses := make([]string, listeners)
	for revision := range revisions {
		var e store.Edit
		for i := range listeners {
			address := "127.0.0.1:0"
			if revision > 0 {
				address = addresses[i]
				e.Deletes = append(e.Deletes, deletes(name(revision-1, i))...)
			}
			e.Puts = append(e.Puts, puts(bare(name(revision, i), address))...)
		}
		g.apply(e)
		if revision > 0 {
			continue
		}
		bound := map[string]string{}
		for _, l := range g.Status().GetListeners() {
			bound[l.GetName()] = l.GetBoundAddress()
		}
		for i := range addresses {
			addresses[i] = bound[name(0, i)]
		}
	}
	eventually(t, "every earlier owner has ended", func() bool { return len(g.Status().GetListeners()) == listeners })
	for _, l := range g.Status().GetListeners() {
		if l.GetState() != adminv1.ListenerState_LISTENER_STATE_UP {
			t.Errorf("%s is %v: %s", l.GetName(), l.GetState(), l.GetReason())
		}
	}
	for _, address := range addresses {
		// A connection in the queue of a listener stays open.
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.SetDeadline(time.Now().Add(deadline))
			_, err = io.ReadAll(c)
			c.Close()
		}
		if err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a client of %s: %v", address, err)
		}
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
}

// A listener may move between addresses that overlap, in one write and with
// clients of the old address still connected. Another process may use the port on
// one of the addresses. Then the test tries another port, a few times.
func TestAListenerMovesBetweenAddressesThatOverlap(t *testing.T) {
	g := start(t, "")
	var err error
	for range 10 {
		if err = moveListeners(t, g); err == nil {
			return
		}
		g.apply(store.Edit{Prune: store.PruneAll()})
	}
	t.Error(err)
}

// moveListeners moves listeners of one port. It returns an error if an address was
// taken.
func moveListeners(t *testing.T, g *testGateway) error {
	g.put(bare("l", ":0"))
	_, port, _ := net.SplitHostPort(g.address("l"))
	try := func(e store.Edit) error {
		_, err := g.Apply(t.Context(), e)
		if err != nil && !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
		return err
	}
	for _, host := range []string{"127.0.0.1:", ":", "127.0.0.1:", "0.0.0.0:", "127.0.0.1:", "[::]:", ":", "127.0.0.1:"} {
		to := host + port
		if err := try(store.Edit{DryRun: true, Puts: puts(bare("l", to))}); err != nil {
			return err
		}
		if !connects("127.0.0.1:" + port) {
			t.Errorf("a dry run of a move to %s has shut clients out", to)
		}
		if err := try(store.Edit{Puts: puts(bare("l", to))}); err != nil {
			return err
		}
		if l := g.listener("l"); !strings.HasSuffix(l.GetBoundAddress(), ":"+port) || l.GetState() != adminv1.ListenerState_LISTENER_STATE_UP {
			t.Errorf("after a move to %s: %v", to, l)
		}
		if !connects("127.0.0.1:" + port) {
			t.Errorf("after a move to %s no client can connect", to)
		}
	}
	// The kernel still refuses the address to every other process.
	if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
		l.Close()
		t.Error("another process can listen on the same address")
	}
	// One listener becomes two, and two become one.
	if err := try(store.Edit{Puts: puts(bare("l", ":"+port))}); err != nil {
		return err
	}
	if err := try(store.Edit{Puts: puts(bare("l", "127.0.0.1:"+port), bare("m", "127.0.0.2:"+port))}); err != nil {
		return err
	}
	for i := 1; i <= 3; i++ {
		if address := fmt.Sprintf("127.0.0.%d:%s", i, port); connects(address) != (i < 3) {
			t.Errorf("%s: connects %v", address, i >= 3)
		}
	}
	if err := try(store.Edit{Puts: puts(bare("l", ":"+port)), Deletes: deletes("m")}); err != nil {
		return err
	}
	if !connects("127.0.0.3:" + port) {
		t.Error("the wildcard does not take every address")
	}
	return nil
}
