package http2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/faulttest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// content returns a body of n bytes without repetition.
func content(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i * 7 >> 3)
	}
	return p
}

// An exchangeKind is one way to use a stream. client returns nil if the
// exchange looks complete to it.
type exchangeKind struct {
	name           string
	upload         int  // bytes of the request's body
	uploadDeclared bool // the request declares its length
	answer         int  // bytes of the response's body
	answerDeclared bool // the response declares its length
	serve          func(s *ServerStream, x *exchangeKind) error
	abort          bool // the client gives up in the middle
}

// serveWhole responds after it has read the whole request.
func serveWhole(s *ServerStream, x *exchangeKind) error {
	got, err := readAll(s)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, content(x.upload)) {
		return fmt.Errorf("a request's body of %d bytes, of %d, looks complete", len(got), x.upload)
	}
	return serveAnswer(s, x)
}

func serveAnswer(s *ServerStream, x *exchangeKind) error {
	r := ok(message.Field{Name: "x", Value: "y"})
	if x.answerDeclared {
		r.Length = int64(x.answer)
	}
	_ = s.Respond(r, false)
	for p := content(x.answer); len(p) > 0; {
		n := min(len(p), 10_000)
		if s.Write(p[:n]) != nil {
			return nil
		}
		p = p[n:]
	}
	_ = s.End(message.Fields{{Name: "x-end", Value: "yes"}})
	return nil
}

var exchangeKinds = []exchangeKind{
	{name: "unary", upload: 64, answer: 64, serve: serveWhole},
	{name: "unary of known lengths", upload: 64, uploadDeclared: true, answer: 64, answerDeclared: true, serve: serveWhole},
	{name: "upload", upload: 150_000, answer: 10, serve: serveWhole},
	{name: "download", answer: 150_000, serve: serveWhole},
	{name: "download of a known length", answer: 150_000, answerDeclared: true, serve: serveWhole},
	{name: "answered early", upload: 100_000, answer: 10, serve: serveAnswer},
	{name: "interim responses", answer: 10, serve: func(s *ServerStream, x *exchangeKind) error {
		_ = s.Inform(&message.Response{Status: 103})
		return serveWhole(s, x)
	}},
	{name: "echo", upload: 30_000, answer: 30_000, serve: func(s *ServerStream, x *exchangeKind) error {
		echo(s)
		return nil
	}},
	{name: "aborted", upload: 30_000, answer: 30_000, abort: true, serve: serveWhole},
}

// ask makes an exchange, and returns nil if it looks complete.
func (x *exchangeKind) ask(c *ClientConn) error {
	s := c.Open()
	if s == nil {
		return errors.New("no room")
	}
	defer s.Done()
	r := post("/")
	if x.uploadDeclared {
		r.Length = int64(x.upload)
	}
	if err := s.Send(r, false); err != nil {
		return err
	}
	var sending sync.WaitGroup
	sending.Go(func() {
		if s.Write(content(x.upload)) == nil {
			_ = s.End(nil)
		}
	})
	defer sending.Wait()
	if x.abort {
		_ = s.Flush()
		s.Abort(errTest)
	}
	_, body, err := receive(s)
	if err != nil {
		s.Abort(err)
		return err
	}
	if want := content(x.answer); !bytes.Equal([]byte(body), want) {
		return fmt.Errorf("%w: %d bytes of %d", errCutOff, len(body), len(want))
	}
	if v, _ := s.Trailer().Get("x-end"); v != "yes" {
		return fmt.Errorf("%w: no trailer", errCutOff)
	}
	return nil
}

var errCutOff = errors.New("a response that was cut off looks whole")

// run makes exchanges over a connection on which one operation of one side
// fails. It returns the number of operations of that side.
func (x *exchangeKind) run(t *testing.T, atServer bool, fault faulttest.Fault) (ops int) {
	near, far := net.Pipe()
	sides := [2]net.Conn{near, far}
	which := 0
	if atServer {
		which = 1
	}
	faulty := faulttest.Wrap(sides[which], fault)
	sides[which] = faulty
	o := Options{Panicked: func(v any, stack []byte) { t.Errorf("panic: %v\n%s", v, stack) }}
	server := NewServerConn(sides[1], nil, o)
	client := NewClientConn(sides[0], o)
	var running sync.WaitGroup
	running.Go(func() {
		_ = server.Serve(func(s *ServerStream) {
			if err := x.serve(s, x); err != nil && !errors.As(err, new(*Error)) && err != io.EOF {
				t.Error(err)
			}
		})
	})
	running.Go(func() { _ = client.Run() })
	var asking sync.WaitGroup
	for range 3 {
		asking.Go(func() {
			err := x.ask(client)
			if errors.Is(err, errCutOff) || fault.Kind == faulttest.None && (err != nil) != x.abort {
				t.Errorf("%v", err)
			}
		})
	}
	asking.Wait() // no Close: time limits end stalled exchanges
	client.Close()
	server.Close()
	running.Wait()
	for _, c := range []*conn{&client.conn, &server.conn} {
		if len(c.streams) != 0 || c.grown != 0 || c.blocked != 0 || c.out.bodyQueue.head != nil || c.out.room.head != nil || c.out.buf != nil {
			t.Errorf("left: %d streams, %d of windows, %d blocked, %v, %v", len(c.streams), c.grown, c.blocked, c.out.bodyQueue, c.out.room)
		}
	}
	return faulty.Ops()
}

// When any read or write fails in any way, nothing panics, no goroutine or stream is
// left over, and no truncated message looks complete. FAULTS=all tries every operation
// under the race detector too.
func TestFaultsOfTheConnection(t *testing.T) {
	for i := range exchangeKinds {
		x := &exchangeKinds[i]
		for _, atServer := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/server=%v", x.name, atServer), func(t *testing.T) {
				t.Parallel()
				positions := 0
				if os.Getenv("FAULTS") != "all" && (testing.Short() || alloctest.Race) {
					positions = 12 // each run is expensive under the race detector
				}
				faulttest.Each(t, positions, func(t *testing.T, f faulttest.Fault) int { return x.run(t, atServer, f) })
			})
		}
	}
}
