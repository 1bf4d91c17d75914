package l7

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A panicking front panics when its body is read.
type panickingFront struct {
	after   int // number of reads before the panic
	aborted chan error
	status  int
}

func (f *panickingFront) Read() ([]byte, error) {
	if f.after--; f.after < 0 {
		panic("a fault of the gateway itself")
	}
	return []byte("x"), nil
}
func (f *panickingFront) Buffered() bool                 { return true }
func (f *panickingFront) Trailer() message.Fields        { return nil }
func (f *panickingFront) Refuse()                        {}
func (f *panickingFront) Inform(*message.Response) error { return nil }
func (f *panickingFront) Write([]byte) error             { return nil }
func (f *panickingFront) Flush() error                   { return nil }
func (f *panickingFront) End(message.Fields) error       { return nil }
func (f *panickingFront) Notify(gone func(cause error))  {}
func (f *panickingFront) Respond(r *message.Response, _ bool) error {
	f.status = r.Status
	return nil
}
func (f *panickingFront) Abort(cause error) {
	select {
	case f.aborted <- cause:
	default:
	}
}

// A panic on the goroutine of an upload ends only its exchange.
func TestAPanicInAnUploadEndsItsExchangeOnly(t *testing.T) {
	for _, retries := range []bool{false, true} {
		for _, p := range []backs.Protocol{backs.HTTP1, backs.HTTP2} {
			for _, after := range []int{0, 1} {
				w := newTestbed(t)
				serve := func(c net.Conn) {
					if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						_, _ = io.Copy(io.Discard, r.Body)
					}
				}
				var back *backs.Pools
				if p == backs.HTTP2 {
					back = w.back(p, w.raw(w.serverTLS("h2"), (&refusingUpstream{}).serve))
				} else {
					back = w.back(p, w.raw(w.serverTLS("http/1.1"), serve))
				}
				table := &Table{Default: to(back)}
				if retries {
					table.Default.Forward.Retry = &everything
				}
				s, _ := w.gateway(fixed(table))
				f := &panickingFront{after: after, aborted: make(chan error, 1)}
				r := &message.Request{Method: "POST", Target: "/", Authority: "a", Scheme: "http", Major: 1, Minor: 1, Length: -1}
				s.handle(f, r, &conn{server: s}, table)
				if cause := <-f.aborted; !errors.Is(cause, errPanic) || f.status != 0 {
					t.Errorf("%v, retries %v: aborted with %v, answered %d", p, retries, cause, f.status)
				}
				if !strings.Contains(w.log.String(), "a fault of the gateway itself") {
					t.Error("nothing was logged")
				}
				if n := s.Stats().InFlight; n != 0 {
					t.Errorf("%d requests are in flight", n)
				}
			}
		}
	}
}
