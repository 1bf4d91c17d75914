package http2

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A script is a peer that has sent everything and reads everything.
type script struct{ *bytes.Reader }

func (script) Write(p []byte) (int, error)      { return len(p), nil }
func (script) Close() error                     { return nil }
func (script) LocalAddr() net.Addr              { return nil }
func (script) RemoteAddr() net.Addr             { return nil }
func (script) SetDeadline(time.Time) error      { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }

// seeds returns valid connections for the fuzzer to mutate.
func seeds(heads ...[]hpack.HeaderField) (all [][]byte) {
	for _, end := range []bool{true, false} {
		var b, block bytes.Buffer
		f := h2.NewFramer(&b, nil)
		e := hpack.NewEncoder(&block)
		_ = f.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 10})
		for i, head := range heads {
			block.Reset()
			for _, field := range head {
				_ = e.WriteField(field)
			}
			id := uint32(2*i + 1)
			_ = f.WriteHeaders(h2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
			if !end {
				_ = f.WriteData(id, false, []byte("hello"))
				_ = f.WriteDataPadded(id, i == 0, []byte("there"), make([]byte, 5))
				_ = f.WriteWindowUpdate(id, 100)
			}
		}
		_ = f.WritePing(false, [8]byte{})
		_ = f.WriteRSTStream(1, h2.ErrCodeCancel)
		_ = f.WriteGoAway(1, h2.ErrCodeNo, nil)
		all = append(all, b.Bytes())
	}
	return all
}

// For any bytes that a client sends, its requests have only valid parts.
func FuzzServer(f *testing.F) {
	for _, s := range seeds(
		[]hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":path", Value: "/"}, {Name: ":authority", Value: "a"}, {Name: "cookie", Value: "a"}, {Name: "cookie", Value: "b"}},
		[]hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/?q"}, {Name: "host", Value: "a"}, {Name: "content-length", Value: "10"}},
	) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append([]byte(h2.ClientPreface), b...)
		c := NewServerConn(script{bytes.NewReader(b)}, nil, Options{MaxStreams: 10, MaxHeaderBytes: 4 << 10})
		_ = c.Serve(func(s *ServerStream) {
			r := s.Request()
			if !message.IsToken(r.Method) || !message.IsAuthority(r.Authority) || r.Method != "CONNECT" && r.Target != "*" && !message.IsTarget(r.Target) {
				t.Errorf("%+v", r)
			}
			good(t, r.Fields)
			n, err := readAll(s)
			if err == nil && r.Length >= 0 && int64(len(n)) != r.Length {
				t.Errorf("a body of %d bytes, declared as %d", len(n), r.Length)
			}
			good(t, s.Trailer())
			_ = s.Respond(ok(), false)
			_ = s.Write(make([]byte, 100))
			_ = s.End(nil)
		})
		if len(c.streams) != 0 || c.running != 0 || c.grown != 0 || c.blocked != 0 {
			t.Errorf("left: %d streams, %d handlers, %d grown, %d blocked", len(c.streams), c.running, c.grown, c.blocked)
		}
	})
}

func good(t *testing.T, fields message.Fields) {
	for _, f := range fields {
		if !message.IsLowerToken(f.Name) || !message.IsValue(f.Value) {
			t.Errorf("%+v", f)
		}
	}
}

// For any bytes that a server sends, its responses have only valid parts.
func FuzzClient(f *testing.F) {
	for _, s := range seeds(
		[]hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-length", Value: "10"}},
		[]hpack.HeaderField{{Name: ":status", Value: "103"}, {Name: "link", Value: "x"}},
		[]hpack.HeaderField{{Name: ":status", Value: "204"}},
	) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewClientConn(script{bytes.NewReader(b)}, Options{MaxHeaderBytes: 4 << 10})
		var streams []*ClientStream
		for i := range 3 {
			s := c.Open()
			q := post("/")
			if i == 1 {
				q.Method = "HEAD"
			}
			if err := s.Send(q, i > 0); err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		_ = c.Run()
		for i, s := range streams {
			var head message.Response
			err := s.Receive(&head)
			for err == nil && head.Interim() {
				err = s.Receive(&head)
			}
			if err == nil {
				good(t, head.Fields)
				var p []byte
				if p, err = readAll(s); err == nil && head.Length >= 0 && int64(len(p)) != head.Length {
					t.Errorf("a body of %d bytes, declared as %d", len(p), head.Length)
				}
				good(t, s.Trailer())
			}
			if err == io.EOF && i > 0 {
				t.Error(err)
			}
			s.Done()
		}
		if len(c.streams) != 0 || c.open != 0 || c.grown != 0 || c.blocked != 0 {
			t.Errorf("left: %d streams, %d open, %d grown, %d blocked", len(c.streams), c.open, c.grown, c.blocked)
		}
	})
}
