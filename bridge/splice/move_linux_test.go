package splice

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// An overloaded loop moves half of its active splices to another loop, which carries
// their bytes.
func TestAnOverloadedLoopMovesSplices(t *testing.T) {
	e := newEngine()
	for i := range 2 {
		l, err := newLoop(e)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(l.wakeFD)
		defer l.file.Close()
		l.index = i
		e.loops = append(e.loops, l)
	}
	first, second := e.loops[0], e.loops[1]

	// The test runs the turns of the first loop; only the second runs by itself.
	clients, upstreams := [4]io.ReadWriter{}, [4]io.ReadWriter{}
	splices := [4]*Splice{}
	for i := range splices {
		client, clientFar := tcpPair(t)
		upstream, upstreamFar := tcpPair(t)
		defer clientFar.Close()
		defer upstreamFar.Close()
		clients[i], upstreams[i] = clientFar, upstreamFar
		splices[i] = e.Start(client, upstream, Options{Idle: 1 << 40, Linger: 1 << 40})
		defer splices[i].Cut(Shutdown, nil)
	}
	turns := func() {
		space := e.getWorkspace(0)
		defer e.putWorkspace(space)
		for _, s := range splices {
			if s.registration.loop == first {
				s.mu.Lock()
				first.turn(s, space)
			}
		}
	}
	moved := func() (n int) {
		for _, s := range splices {
			if s.registration.loop == second {
				n++
			}
		}
		return n
	}
	for i := range relieveAfter {
		turns()
		if moved() != 0 {
			t.Fatal("a splice moved before the loop was overloaded")
		}
		first.balance(first.load.began + window + 1) // the loop has not waited
		if i < relieveAfter-1 && first.move.number != 0 {
			t.Fatalf("%d splices are to move after %d windows", first.move.number, i+1)
		}
	}
	turns()
	if n := moved(); n != len(splices)/2 {
		t.Fatalf("%d splices moved, want half of %d", n, len(splices))
	}

	go second.run()
	defer func() { <-second.ended }()
	defer second.file.Close()
	for i, s := range splices {
		if s.registration.loop != second {
			continue
		}
		for _, ends := range [][2]io.ReadWriter{{clients[i], upstreams[i]}, {upstreams[i], clients[i]}} {
			if _, err := io.WriteString(ends[0], "after"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := io.ReadFull(ends[1], got); err != nil || string(got) != "after" {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
}
