package http2

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Malformed requests are rejected, and their connection continues to serve.
func TestMalformedRequestsAreRejected(t *testing.T) {
	var reached atomic.Int64
	var reasons atomic.Int64
	nc, _ := serve(t, Options{MaxFields: 20, MaxHeaderBytes: 4 << 10, Refused: func(err *Error) {
		if err.Reason == "" || strings.Contains(err.Error(), "attack") {
			t.Errorf("refused with %v", err)
		}
		reasons.Add(1)
	}}, func(s *ServerStream) {
		reached.Add(1)
		echo(s)
	})
	r := rawClient(t, nc)
	without := func(name string, more ...string) []string {
		return with(slices.DeleteFunc(slices.Clone(simple), func(f string) bool { return strings.HasPrefix(f, name+":") }), more...)
	}
	id := uint32(1)
	for _, c := range []struct {
		name   string
		fields []string
	}{
		// Section 8.3: pseudo-header fields.
		{"no method", without(":method")},
		{"no scheme", without(":scheme")},
		{"no path", without(":path")},
		{"no authority and no host", without(":authority")},
		{"two methods", with(simple, ":method: GET")},
		{"two authorities", with(simple, ":authority: a.test")},
		{"a pseudo-header field after a regular field", without(":path", "x: y", ":path: /")},
		{"an unknown pseudo-header field", with(simple, ":attack: a")},
		{"a pseudo-header field of responses", with(simple, ":status: 200")},
		{"a protocol without CONNECT", with(simple, ":protocol: websocket")},
		{"an extended CONNECT that was not offered", []string{":method: CONNECT", ":scheme: https", ":path: /", ":authority: a.test", ":protocol: websocket"}},
		{"a CONNECT with a path", []string{":method: CONNECT", ":authority: a.test:443", ":path: /"}},
		{"a CONNECT with a scheme", []string{":method: CONNECT", ":authority: a.test:443", ":scheme: https"}},
		{"a CONNECT without authority", []string{":method: CONNECT", "host: a.test:443"}},
		{"an empty method", append([]string{":method: "}, without(":method")...)},
		{"a method with a blank", append([]string{":method: GET / HTTP/1.1"}, without(":method")...)},
		{"a method in brackets", append([]string{":method: (GET)"}, without(":method")...)},
		{"an empty path", append([]string{":path: "}, without(":path")...)},
		{"a path without a slash", append([]string{":path: attack"}, without(":path")...)},
		{"an absolute path", append([]string{":path: http://b.test/"}, without(":path")...)},
		{"a star without OPTIONS", append([]string{":path: *"}, without(":path")...)},
		{"a path with a blank", append([]string{":path: /a HTTP/1.1"}, without(":path")...)},
		{"a path with a line end", append([]string{":path: /a\r\nx: y"}, without(":path")...)},
		{"a path with a fragment", append([]string{":path: /a#b"}, without(":path")...)},
		{"a path with a NUL", append([]string{":path: /a\x00"}, without(":path")...)},
		{"a path that is not ASCII", append([]string{":path: /\u00e9"}, without(":path")...)},
		{"another scheme", append([]string{":scheme: ftp"}, without(":scheme")...)},
		{"an upper-case scheme", append([]string{":scheme: HTTPS"}, without(":scheme")...)},
		{"a scheme with a host", append([]string{":scheme: https://b.test/?"}, without(":scheme")...)},
		{"two hosts in one authority", append([]string{":authority: a.test,b.test"}, without(":authority")...)},
		{"a user", append([]string{":authority: user@a.test"}, without(":authority")...)},
		{"a user and a password", append([]string{":authority: u:p@a.test"}, without(":authority")...)},
		{"a path in the authority", append([]string{":authority: a.test/b"}, without(":authority")...)},
		{"an empty authority", append([]string{":authority: "}, without(":authority")...)},
		{"a port alone", append([]string{":authority: :443"}, without(":authority")...)},
		{"an authority with a blank", append([]string{":authority: a.test b.test"}, without(":authority")...)},
		{"an authority with a line end", append([]string{":authority: a.test\nx: y"}, without(":authority")...)},
		{"a Host that differs from the authority", with(simple, "host: b.test")},
		{"a Host with another port", with(simple, "host: a.test:81")},
		{"two Hosts", with(simple, "host: a.test", "host: a.test")},
		{"two Hosts without an authority", without(":authority", "host: a.test", "host: a.test")},
		{"an empty Host without an authority", without(":authority", "host: ")},

		// Section 8.2: fields.
		{"an upper-case name", with(simple, "X-Attack: a")},
		{"a name with a blank", with(simple, "x y: a")},
		{"a name with a colon", with(simple, "x:y: a")},
		{"a name with a line end", with(simple, "x\r\ny: a")},
		{"a name that is not ASCII", with(simple, "\u00e9: a")},
		{"a value with CR", with(simple, "x: a\rb")},
		{"a value with LF", with(simple, "x: a\nb")},
		{"a value with CR and LF", with(simple, "x: a\r\nattack: b")},
		{"a value with NUL", with(simple, "x: a\x00b")},
		{"a value with DEL", with(simple, "x: a\x7fb")},
		{"a blank before a value", with(simple, "x:  a")},
		{"a blank after a value", with(simple, "x: a ")},
		{"a tab after a value", with(simple, "x: a\t")},

		// Section 8.2.2: connection fields of HTTP/1.1.
		{"connection", with(simple, "connection: close")},
		{"proxy-connection", with(simple, "proxy-connection: keep-alive")},
		{"keep-alive", with(simple, "keep-alive: timeout=5")},
		{"transfer-encoding", with(simple, "transfer-encoding: chunked")},
		{"upgrade", with(simple, "upgrade: h2c")},
		{"http2-settings", with(simple, "http2-settings: AAMAAABkAAQAAP__")},
		{"te", with(simple, "te: gzip")},
		{"te with more than trailers", with(simple, "te: trailers, gzip")},

		// Section 8.1.1: the length.
		{"a length without a body", with(simple, "content-length: 5")},
		{"two lengths", with(simple, "content-length: 0", "content-length: 0")},
		{"a signed length", with(simple, "content-length: +0")},
		{"a negative length", with(simple, "content-length: -1")},
		{"a list of lengths", with(simple, "content-length: 0, 0")},
		{"an empty length", with(simple, "content-length: ")},
		{"a hexadecimal length", with(simple, "content-length: 0x0")},
		{"a length that is too large", with(simple, "content-length: 99999999999999999999")},
	} {
		r.headers(id, true, c.fields...)
		if got := r.outcome(id); got != "RST PROTOCOL_ERROR" {
			t.Errorf("%s: %s", c.name, got)
		}
		id += 2
	}
	// The last reset may reach the client before its reason is reported.
	eventually(t, "every reason to be reported", func() bool { return reasons.Load() >= int64(id-1)/2 })
	refusedSoFar := reasons.Load()
	if reached.Load() != 0 || refusedSoFar != int64(id-1)/2 {
		t.Errorf("%d of them were served, and Refused was called for %d of %d", reached.Load(), refusedSoFar, (id-1)/2)
	}

	// A head that is too large gets a response, and the decoder stays in sync.
	for _, fields := range [][]string{with(simple, "x: "+strings.Repeat("a", 5000)), with(simple, slices.Repeat([]string{"x: a"}, 20)...)} {
		r.headers(id, false, fields...)
		if got := r.outcome(id); got != "431" {
			t.Errorf("a head that is too large: %s", got)
		}
		id += 2
	}

	for _, c := range []struct {
		name   string
		fields []string
	}{
		{"only the required fields", simple},
		{"a field twice", with(simple, "x: a", "x: b")},
		{"an empty value", with(simple, "x: ")},
		{"a tab in a value", with(simple, "x: a\tb")},
		{"a value that is not ASCII", with(simple, "x: \u00e9")},
		{"te: trailers", with(simple, "te: trailers")},
		{"content-length: 0", with(simple, "content-length: 0")},
		{"a Host equal to the authority", with(simple, "host: A.test")},
		{"a Host without an authority", without(":authority", "host: a.test")},
		{"OPTIONS *", []string{":method: OPTIONS", ":scheme: https", ":path: *", ":authority: a.test"}},
		{"CONNECT", []string{":method: CONNECT", ":authority: a.test:443"}},
		{"pseudo-header fields in any order", []string{":authority: a.test", ":path: /", ":method: GET", ":scheme: http"}},
	} {
		r.headers(id, true, c.fields...)
		if got := r.outcome(id); !strings.HasPrefix(got, "200 ") {
			t.Errorf("%s: %s", c.name, got)
		}
		id += 2
	}
}

func TestParsedRequests(t *testing.T) {
	got := make(chan message.Request, 1)
	nc, _ := serve(t, Options{ExtendedConnect: true}, func(s *ServerStream) {
		got <- *s.Request()
		_ = s.Respond(&message.Response{Status: 204}, true)
	})
	r := rawClient(t, nc)
	r.headers(1, true, ":method: GET", ":scheme: https", ":path: /p?q", ":authority: A.test:8443", "host: a.Test:8443", "cookie: a=b", "x: y", "cookie: c=d", "cookie: e=f", "te: trailers")
	q := <-got
	want := message.Fields{{Name: "cookie", Value: "a=b; c=d; e=f"}, {Name: "x", Value: "y"}, {Name: "te", Value: "trailers"}}
	if q.Method != "GET" || q.Scheme != "https" || q.Target != "/p?q" || q.Authority != "A.test:8443" || q.Length != 0 || q.Major != 2 || q.Minor != 0 || !slices.Equal(q.Fields, want) {
		t.Errorf("%+v", q)
	}
	r.headers(3, false, with(simplePost, "content-length: 7")...)
	if q = <-got; q.Length != 7 {
		t.Errorf("%+v", q)
	}
	r.headers(5, false, simplePost...)
	if q = <-got; q.Length != -1 {
		t.Errorf("%+v", q)
	}
	r.headers(7, false, ":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: /chat", ":authority: a.test")
	if q = <-got; q.Method != "CONNECT" || q.Protocol != "websocket" || q.Target != "/chat" || q.Length != -1 {
		t.Errorf("%+v", q)
	}
	r.headers(9, true, ":method: CONNECT", ":authority: a.test:443")
	if q = <-got; q.Method != "CONNECT" || q.Target != "" || q.Scheme != "" || q.Authority != "a.test:443" {
		t.Errorf("%+v", q)
	}
}

func TestABodyMustMatchItsContentLength(t *testing.T) {
	read := make(chan error, 1)
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		_, err := readAll(s)
		read <- err
		_ = s.Respond(&message.Response{Status: 200}, true)
	})
	r := rawClient(t, nc)
	id := uint32(1)
	for _, c := range []struct {
		name string
		send func(id uint32)
		want string
	}{
		{"the exact length", func(id uint32) { r.must(r.WriteData(id, true, []byte("12345"))) }, "200"},
		{"in pieces", func(id uint32) {
			r.must(r.WriteData(id, false, []byte("12")))
			r.must(r.WriteDataPadded(id, false, []byte("345"), make([]byte, 200)))
			r.must(r.WriteData(id, true, nil))
		}, "200"},
		{"with a trailer", func(id uint32) {
			r.must(r.WriteData(id, false, []byte("12345")))
			r.headers(id, true, "x: y")
		}, "200"},
		{"a longer body", func(id uint32) { r.must(r.WriteData(id, false, []byte("123456"))) }, "RST PROTOCOL_ERROR"},
		{"a shorter body", func(id uint32) { r.must(r.WriteData(id, true, []byte("1234"))) }, "RST PROTOCOL_ERROR"},
		{"an empty body", func(id uint32) { r.must(r.WriteData(id, true, nil)) }, "RST PROTOCOL_ERROR"},
		{"shorter, with a trailer", func(id uint32) { r.headers(id, true, "x: y") }, "RST PROTOCOL_ERROR"},
	} {
		r.headers(id, false, with(simplePost, "content-length: 5")...)
		c.send(id)
		if got := r.outcome(id); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
		if err := <-read; (err == nil) != (c.want == "200") {
			t.Errorf("%s: read with %v", c.name, err)
		}
		id += 2
	}
}

func TestMalformedTrailersAreRejected(t *testing.T) {
	read := make(chan error, 1)
	nc, _ := serve(t, Options{MaxFields: 10}, func(s *ServerStream) {
		_, err := readAll(s)
		read <- err
	})
	r := rawClient(t, nc)
	id := uint32(1)
	for name, fields := range map[string][]string{
		"a pseudo-header field": {":path: /"},
		"upper case":            {"X: y"},
		"a line end":            {"x: a\r\nb"},
		"transfer-encoding":     {"transfer-encoding: chunked"},
		"content-length":        {"content-length: 1"},
		"host":                  {"host: a.test"},
		"too many":              slices.Repeat([]string{"x: y"}, 11),
	} {
		r.headers(id, false, simplePost...)
		r.headers(id, true, fields...)
		if got := r.outcome(id); got != "RST PROTOCOL_ERROR" {
			t.Errorf("%s: %s", name, got)
		}
		if err := <-read; err == nil {
			t.Errorf("%s: the body looks complete", name)
		}
		id += 2
	}
	r.headers(id, false, simplePost...)
	r.headers(id, false, "x: y")
	if got := r.outcome(id); got != "RST PROTOCOL_ERROR" {
		t.Errorf("a trailer without END_STREAM: %s", got)
	}
	<-read
}

// A violation of the connection's rules ends the connection.
func TestConnectionErrorsEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(r *raw)
		want string
	}{
		{"no SETTINGS", func(r *raw) { _ = r.WritePing(false, [8]byte{}) }, "GOAWAY PROTOCOL_ERROR"},
		{"a server's stream ID", func(r *raw) { r.hello(); r.headers(2, true, simple...) }, "GOAWAY PROTOCOL_ERROR"},
		{"a skipped stream ID", func(r *raw) { r.hello(); r.headers(5, true, simple...); r.headers(3, true, simple...) }, "GOAWAY STREAM_CLOSED"},
		{"DATA on an idle stream", func(r *raw) { r.hello(); _ = r.WriteData(1, true, nil) }, "GOAWAY PROTOCOL_ERROR"},
		{"DATA on stream 0", func(r *raw) { r.hello(); _ = r.WriteData(0, true, nil) }, "GOAWAY PROTOCOL_ERROR"},
		{"RST_STREAM on an idle stream", func(r *raw) { r.hello(); _ = r.WriteRSTStream(1, 0) }, "GOAWAY PROTOCOL_ERROR"},
		{"WINDOW_UPDATE on an idle stream", func(r *raw) { r.hello(); _ = r.WriteWindowUpdate(1, 1) }, "GOAWAY PROTOCOL_ERROR"},
		{"WINDOW_UPDATE by 0", func(r *raw) { r.hello(); _ = r.WriteWindowUpdate(0, 0) }, "GOAWAY PROTOCOL_ERROR"},
		{"a window too large", func(r *raw) { r.hello(); _ = r.WriteWindowUpdate(0, maxWindow) }, "GOAWAY FLOW_CONTROL_ERROR"},
		{"an initial window too large", func(r *raw) {
			r.hello()
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 31})
		}, "GOAWAY FLOW_CONTROL_ERROR"},
		{"a MAX_FRAME_SIZE of 0", func(r *raw) { r.hello(); _ = r.WriteSettings(h2.Setting{ID: h2.SettingMaxFrameSize}) }, "GOAWAY PROTOCOL_ERROR"},
		{"a MAX_FRAME_SIZE too large", func(r *raw) {
			r.hello()
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingMaxFrameSize, Val: 1 << 24})
		}, "GOAWAY PROTOCOL_ERROR"},
		{"an ENABLE_PUSH of 2", func(r *raw) { r.hello(); _ = r.WriteSettings(h2.Setting{ID: h2.SettingEnablePush, Val: 2}) }, "GOAWAY PROTOCOL_ERROR"},
		{"an acknowledgment without SETTINGS", func(r *raw) { r.hello(); _ = r.WriteSettingsAck(); _ = r.WriteSettingsAck() }, "GOAWAY PROTOCOL_ERROR"},
		{"a PUSH_PROMISE", func(r *raw) {
			r.hello()
			_ = r.WritePushPromise(h2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, "GOAWAY PROTOCOL_ERROR"},
		{"a frame too large", func(r *raw) { r.hello(); _ = r.WriteRawFrame(h2.FramePing, 0, 0, make([]byte, maxFrame+1)) }, "GOAWAY FRAME_SIZE_ERROR"},
		{"a PING too short", func(r *raw) { r.hello(); _ = r.WriteRawFrame(h2.FramePing, 0, 0, make([]byte, 7)) }, "GOAWAY FRAME_SIZE_ERROR"},
		{"padding without a length", func(r *raw) {
			r.hello()
			r.headers(1, false, simplePost...)
			_ = r.WriteRawFrame(h2.FrameData, h2.FlagDataPadded, 1, nil)
		}, "GOAWAY FRAME_SIZE_ERROR"},
		{"padding longer than its frame", func(r *raw) {
			r.hello()
			r.headers(1, false, simplePost...)
			_ = r.WriteRawFrame(h2.FrameData, h2.FlagDataPadded, 1, []byte{5, 0, 0})
		}, "GOAWAY PROTOCOL_ERROR"},
		{"HEADERS with padding longer than its frame", func(r *raw) {
			r.hello()
			_ = r.WriteRawFrame(h2.FrameHeaders, h2.FlagHeadersPadded|h2.FlagHeadersEndHeaders, 1, []byte{5, 0, 0})
		}, "GOAWAY PROTOCOL_ERROR"},
		{"a block that cannot be decoded", func(r *raw) {
			r.hello()
			_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff}, EndHeaders: true})
		}, "GOAWAY COMPRESSION_ERROR"},
		{"a block with an unknown index", func(r *raw) {
			r.hello()
			_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xbe}, EndHeaders: true})
		}, "GOAWAY COMPRESSION_ERROR"},
		{"another frame in a block", func(r *raw) {
			r.hello()
			_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: r.encode(simple...)})
			_ = r.WritePing(false, [8]byte{})
		}, "GOAWAY PROTOCOL_ERROR"},
		{"another stream's CONTINUATION", func(r *raw) {
			r.hello()
			_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: r.encode(simple...)})
			_ = r.WriteContinuation(3, true, nil)
		}, "GOAWAY PROTOCOL_ERROR"},
		{"more data than the stream's window allows", func(r *raw) {
			r.hello()
			r.headers(1, false, simplePost...)
			for range 5 {
				_ = r.WriteData(1, false, make([]byte, maxFrame))
			}
		}, "RST FLOW_CONTROL_ERROR"},
		{"HTTP/1.1", func(r *raw) { _, _ = r.Conn.Write([]byte("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")) }, "GOAWAY PROTOCOL_ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reading := make(chan struct{})
			nc, _ := serve(t, Options{}, func(s *ServerStream) { <-reading })
			defer close(reading)
			r := newRaw(t, nc)
			if c.name == "no SETTINGS" {
				r.preface()
			}
			c.send(r)
			if got := r.outcome(1); got != c.want {
				t.Errorf("%s", got)
			}
		})
	}
}

func (r *raw) preface() {
	if _, err := r.Conn.Write([]byte(h2.ClientPreface)); err != nil {
		r.t.Fatal(err)
	}
}

// hello sends a client's preface with its settings.
func (r *raw) hello() {
	r.preface()
	r.must(r.WriteSettings())
}

func TestThePeersSettingsAreRespected(t *testing.T) {
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		_ = s.Respond(&message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "x-long", Value: strings.Repeat("v", 40_000)}}}, false)
		_ = s.Write([]byte("hello"))
		_ = s.End(nil)
	})
	r := newRaw(t, nc)
	r.preface()
	r.must(r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 2}, h2.Setting{ID: h2.SettingHeaderTableSize, Val: 0}, h2.Setting{ID: h2.SettingMaxFrameSize, Val: 20_000}))
	r.headers(1, true, simple...)
	f, err := r.next()
	if h, ok := f.(*h2.MetaHeadersFrame); !ok || err != nil || len(h.Fields) != 2 {
		t.Fatalf("%v %v", f, err)
	}
	var got string
	for ended := false; !ended; {
		f, err := r.next()
		d, ok := f.(*h2.DataFrame)
		if !ok || err != nil || len(d.Data()) > 2 {
			t.Fatalf("%v %v", f, err)
		}
		got += string(d.Data())
		if ended = d.StreamEnded(); len(got) == 2 {
			r.must(r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 3}))
		} else {
			r.must(r.WriteWindowUpdate(1, 2))
		}
	}
	if got != "hello" {
		t.Errorf("%q", got)
	}
}
