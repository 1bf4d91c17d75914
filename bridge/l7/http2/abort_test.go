package http2

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// An aborted exchange leaves nothing behind, for each side that can abort it
// and each way to do so.
func TestAbortedExchangesLeaveNothing(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	const atOnce = 16
	client, server := connected(t, Options{}, Options{}, func(s *ServerStream) {
		var gone sync.WaitGroup
		gone.Add(1)
		s.Notify(func(error) { gone.Done() })
		switch s.Request().Target {
		case "/echo":
			echo(s)
		case "/abort":
			_, _ = s.Read()
			s.Abort(errTest)
		case "/half":
			_ = s.Respond(ok(), false)
			_ = s.Write(make([]byte, 100))
			_ = s.Flush()
			_, _ = s.Read()
		case "/refuse":
			s.Refuse()
			_ = s.Respond(&message.Response{Status: 403, Length: 0}, true)
		case "/endless":
			_ = s.Respond(ok(), false)
			for s.Write(make([]byte, 1000)) == nil {
			}
		case "/wait":
			gone.Wait()
		}
	})
	for _, c := range []*conn{&client.conn, &server.conn} {
		c.mu.Lock()
		c.abuse.budgets[streamsAccount] = budget{left: 1 << 40, full: 1 << 40} // the resets would exhaust it
		c.mu.Unlock()
	}
	targets := []string{"/echo", "/abort", "/half", "/refuse", "/endless", "/wait"}
	var all sync.WaitGroup
	for i := range atOnce {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(i)))
			for range rounds / atOnce {
				var s *ClientStream
				eventually(t, "room", func() bool { s = client.Open(); return s != nil || client.Err() != nil })
				if s == nil {
					return
				}
				target := targets[rnd.IntN(len(targets))]
				ends := target != "/endless" && target != "/wait"
				if s.Send(post(target), !ends && rnd.IntN(2) == 0) == nil && ends {
					_ = s.Write(make([]byte, rnd.IntN(3000)))
				}
				switch rnd.IntN(4) {
				case 0:
					s.Abort(errTest)
				case 1:
					_ = s.Flush()
					go s.Abort(errTest)
					_, _, _ = receive(s)
				case 2:
					if ends {
						_ = s.End(nil)
						_, _, _ = receive(s)
					}
				case 3:
					_ = s.Flush()
				}
				s.Done()
			}
		})
	}
	all.Wait()
	if err := client.Err(); err != nil {
		t.Error(err)
	}
	eventually(t, "the handlers to end", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return server.running == 0
	})
	for _, c := range []*conn{&client.conn, &server.conn} {
		c.mu.Lock()
		if len(c.streams) != 0 || c.grown != 0 || c.blocked != 0 || c.out.bodyQueue.head != nil || c.out.room.head != nil {
			t.Errorf("left: %d streams, %d of windows, %d blocked, %v, %v", len(c.streams), c.grown, c.blocked, c.out.bodyQueue, c.out.room)
		}
		c.mu.Unlock()
	}
	if client.Streams() != 0 {
		t.Errorf("%d streams count as open", client.Streams())
	}
}

// The parts of a body that come one by one are read by the same goroutine, which has a large
// enough stack already.
func TestTheReaderOfASlowBodyIsReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		server := NewServerConn(theirs, nil, Options{IdleTimeout: time.Hour})
		served, ran := make(chan error, 1), make(chan error, 1)
		readers := make(chan string, 100)
		go func() {
			served <- server.Serve(func(s *ServerStream) {
				done := make(chan struct{})
				var read func()
				read = func() {
					readers <- goroutine()
					for {
						if s.AwaitBody(read) {
							return
						}
						if _, err := s.Read(); err != nil {
							close(done)
							return
						}
					}
				}
				read()
				<-done
				_ = s.Respond(ok(), true)
			})
		}()
		client := NewClientConn(mine, Options{IdleTimeout: time.Hour})
		go func() { ran <- client.Run() }()
		s := client.Open()
		if err := errors.Join(s.Send(post("/"), false), s.Flush()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		<-readers // the handler
		var first string
		for range 10 {
			if err := errors.Join(s.Write([]byte("a part")), s.Flush()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if r := <-readers; first == "" {
				first = r
			} else if r != first {
				t.Errorf("read by %s, and before by %s", r, first)
			}
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		server.mu.Lock()
		if n := server.workerPool.waiting; n != 0 {
			t.Errorf("%d idle workers are kept", n)
		}
		server.mu.Unlock()
		_ = s.End(nil)
		if _, _, err := receive(s); err != nil {
			t.Error(err)
		}
		s.Done()
		client.Close()
		<-ran
		<-served
	})
}

// goroutine returns the name of the goroutine that calls it.
func goroutine() string {
	text := make([]byte, 64)
	name, _, _ := bytes.Cut(text[:runtime.Stack(text, false)], []byte(" ["))
	return string(name)
}

// A goroutine that has served a stream waits for the next one, and ends if no
// stream comes for a while.
func TestWorkersAreReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		server := NewServerConn(theirs, nil, Options{IdleTimeout: time.Hour})
		served, ran := make(chan error, 1), make(chan error, 1)
		go func() { served <- server.Serve(echo) }()
		client := NewClientConn(mine, Options{IdleTimeout: time.Hour})
		go func() { ran <- client.Run() }()
		parked := func() int {
			synctest.Wait()
			server.mu.Lock()
			defer server.mu.Unlock()
			return server.workerPool.waiting
		}
		exchange := func(n int) {
			var streams []*ClientStream
			for range n {
				s := client.Open()
				if err := s.Send(post("/"), false); err != nil {
					t.Fatal(err)
				}
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
				streams = append(streams, s)
			}
			synctest.Wait() // all are served at once: no stream waits for another
			for _, s := range streams {
				_ = s.End(nil)
				if _, _, err := receive(s); err != nil {
					t.Error(err)
				}
				s.Done()
			}
		}
		exchange(3)
		if n := parked(); n != 3 {
			t.Errorf("%d workers are kept", n)
		}
		exchange(2)
		if n := parked(); n != 3 {
			t.Errorf("%d workers are kept", n)
		}
		exchange(maxWaiting + 5)
		if n := parked(); n != maxWaiting {
			t.Errorf("%d workers are kept", n)
		}
		time.Sleep(20 * time.Second)
		if n := parked(); n != 0 {
			t.Errorf("%d idle workers are kept", n)
		}
		exchange(3)
		if n := parked(); n != 3 {
			t.Errorf("%d workers are kept", n)
		}
		client.Close()
		<-ran
		<-served
	})
}
