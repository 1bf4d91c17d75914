package listeners

import (
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/drawbridge-gateway/drawbridge/bridge/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A turn acts as the server of a lease: it accepts until Accept fails.
type turn struct {
	lease    *lease
	accepted *atomic.Int64
}

func (u turn) serve(done *sync.WaitGroup) {
	defer done.Done()
	defer u.lease.finish()
	for {
		conn, err := u.lease.Accept()
		if err != nil {
			return
		}
		u.accepted.Add(1)
		conn.Close()
	}
}

// Sockets are handed over in bursts on one busy processor. So a lease is often
// handed over before its server accepts, and while the previous lease is still
// ending. Every lease must end, in any order, and the last one must accept the
// waiting client of its socket.
func TestSocketsAreHandedOverInQuickSuccession(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const sockets, bursts = 200, 8 // a burst has 1 to 5 hand-overs
	stop := make(chan struct{})
	var busy sync.WaitGroup
	for range 3 {
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
	d := &Descriptors{Descriptors: socket.NewDescriptors(func() int { return 0 })}
	var servers sync.WaitGroup
	begin := func(l *lease) turn {
		u := turn{l, new(atomic.Int64)}
		servers.Add(1)
		go u.serve(&servers)
		return u
	}
	owners := make([]turn, sockets)
	for i := range owners {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		owners[i] = begin(newLease(ln.(*net.TCPListener), d, nil))
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range bursts {
		var ending []*lease
		for i := range owners {
			for range 1 + random.IntN(5) {
				old := owners[i].lease
				next := old.next()
				old.passTo(next)
				ending = append(ending, old)
				if owners[i] = begin(next); random.IntN(3) == 0 {
					runtime.Gosched()
				}
			}
		}
		for _, l := range ending {
			<-l.ended
		}
	}
	for i := range owners {
		conn, err := net.Dial("tcp", owners[i].lease.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Read(make([]byte, 1)) // waits until the server closes the connection
		conn.Close()
		if owners[i].accepted.Load() != 1 {
			t.Error("the last owner has not accepted its client")
		}
		owners[i].lease.Close()
	}
	servers.Wait()
	close(stop)
	busy.Wait()
}
