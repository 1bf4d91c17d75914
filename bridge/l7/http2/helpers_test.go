package http2

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout is how long a test waits for an event.
const testTimeout = time.Minute

// pair returns the two ends of a connection over loopback.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// serve returns the client's end of a served connection, and its ServerConn.
// The test does not end before Serve has returned.
func serve(t testing.TB, o Options, handler func(*ServerStream)) (net.Conn, *ServerConn) {
	t.Helper()
	mine, theirs := pair(t)
	c := NewServerConn(theirs, nil, o)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Serve(handler)
	}()
	t.Cleanup(func() {
		c.Close()
		await(t, ended, "Serve to return")
	})
	return mine, c
}

// dial returns a client, and the server's end of its connection.
func dial(t testing.TB, o Options) (*ClientConn, net.Conn) {
	t.Helper()
	mine, theirs := pair(t)
	c := NewClientConn(mine, o)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run()
	}()
	t.Cleanup(func() {
		c.Close()
		await(t, ended, "Run to return")
	})
	return c, theirs
}

// connected returns a client and the server it is connected to.
func connected(t testing.TB, client, server Options, handler func(*ServerStream)) (*ClientConn, *ServerConn) {
	t.Helper()
	nc, s := serve(t, server, handler)
	c := NewClientConn(nc, client)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Run()
	}()
	t.Cleanup(func() {
		c.Close()
		await(t, ended, "Run to return")
	})
	return c, s
}

func await(t testing.TB, done <-chan struct{}, event string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(testTimeout):
		t.Errorf("timed out waiting for %s", event)
	}
}

// eventually waits until a condition holds.
func eventually(t testing.TB, condition string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(testTimeout); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s", condition)
		}
	}
}

// readAll reads a body to its end.
func readAll(s interface{ Read() ([]byte, error) }) ([]byte, error) {
	var all []byte
	for {
		p, err := s.Read()
		all = append(all, p...)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

// get is a request without a body.
func get(path string) *message.Request {
	return &message.Request{Method: "GET", Scheme: "https", Authority: "a.test", Target: path}
}

// post is a request with a body of unknown length.
func post(path string) *message.Request {
	return &message.Request{Method: "POST", Scheme: "https", Authority: "a.test", Target: path, Length: -1}
}

// ok is a response with a body of unknown length.
func ok(fields ...message.Field) *message.Response {
	return &message.Response{Status: 200, Fields: fields, Length: -1}
}

// echo answers every request with its body, a field and a trailer.
func echo(s *ServerStream) {
	if s.Respond(ok(message.Field{Name: "x-path", Value: s.Request().Target}), false) != nil {
		return
	}
	for {
		p, err := s.Read()
		if err == io.EOF {
			_ = s.End(message.Fields{{Name: "x-end", Value: "yes"}})
			return
		}
		if err != nil || s.Write(p) != nil {
			return
		}
		if !s.Buffered() && s.Flush() != nil {
			return
		}
	}
}

// A raw is a peer whose frames the test writes itself.
type raw struct {
	t testing.TB
	net.Conn
	*h2.Framer
	block   bytes.Buffer
	encoder *hpack.Encoder
}

// newRaw returns a peer on nc that has sent nothing.
func newRaw(t testing.TB, nc net.Conn) *raw {
	_ = nc.SetDeadline(time.Now().Add(testTimeout))
	r := &raw{t: t, Conn: nc, Framer: h2.NewFramer(nc, nc)}
	r.AllowIllegalWrites = true
	r.encoder = hpack.NewEncoder(&r.block)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return r
}

// rawClient returns a client that has sent its preface.
func rawClient(t testing.TB, nc net.Conn) *raw {
	r := newRaw(t, nc)
	if _, err := io.WriteString(nc, h2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	r.must(r.WriteSettings())
	return r
}

// rawServer returns a server that has read its client's preface.
func rawServer(t testing.TB, nc net.Conn, settings ...h2.Setting) *raw {
	r := newRaw(t, nc)
	p := make([]byte, len(h2.ClientPreface))
	if _, err := io.ReadFull(nc, p); err != nil || string(p) != h2.ClientPreface {
		t.Fatalf("preface: %q, %v", p, err)
	}
	r.must(r.WriteSettings(settings...))
	return r
}

func (r *raw) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// encode returns a header block of fields written "name: value".
func (r *raw) encode(fields ...string) []byte {
	r.block.Reset()
	for _, f := range fields {
		i := strings.Index(f[1:], ": ") + 1
		r.must(r.encoder.WriteField(hpack.HeaderField{Name: f[:i], Value: f[i+2:]}))
	}
	return bytes.Clone(r.block.Bytes())
}

// headers sends a head or trailer.
func (r *raw) headers(id uint32, end bool, fields ...string) {
	r.t.Helper()
	r.must(r.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: r.encode(fields...), EndStream: end, EndHeaders: true}))
}

// next returns the next frame that is neither SETTINGS, WINDOW_UPDATE nor PING,
// acknowledging the first.
func (r *raw) next() (h2.Frame, error) {
	for {
		f, err := r.ReadFrame()
		if err != nil {
			return nil, err
		}
		switch f := f.(type) {
		case *h2.SettingsFrame:
			if !f.IsAck() {
				_ = r.WriteSettingsAck()
			}
		case *h2.WindowUpdateFrame, *h2.PingFrame:
		default:
			return f, nil
		}
	}
}

// outcome returns how a stream ended: the status and body of a response, or the
// code of a reset or GOAWAY.
func (r *raw) outcome(id uint32) string {
	r.t.Helper()
	var got strings.Builder
	for {
		f, err := r.next()
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				r.t.Fatalf("timed out; so far: %q", got.String())
			}
			return got.String() + "closed"
		}
		switch f := f.(type) {
		case *h2.MetaHeadersFrame:
			if f.StreamID != id {
				continue
			}
			got.WriteString(f.PseudoValue("status"))
			for _, h := range f.RegularFields() {
				if strings.HasPrefix(h.Name, "x-") {
					got.WriteString(" " + h.Value)
				}
			}
			if f.StreamEnded() {
				return got.String()
			}
			got.WriteString(" ")
		case *h2.DataFrame:
			if f.StreamID != id {
				continue
			}
			got.Write(f.Data())
			if f.StreamEnded() {
				return got.String()
			}
		case *h2.RSTStreamFrame:
			if f.StreamID == id {
				return got.String() + "RST " + f.ErrCode.String()
			}
		case *h2.GoAwayFrame:
			if f.ErrCode != h2.ErrCodeNo {
				return got.String() + "GOAWAY " + f.ErrCode.String()
			}
		}
	}
}

var simple = []string{":method: GET", ":scheme: https", ":path: /", ":authority: a.test"}
var simplePost = []string{":method: POST", ":scheme: https", ":path: /", ":authority: a.test"}

func with(fields []string, more ...string) []string {
	return append(append([]string(nil), fields...), more...)
}
