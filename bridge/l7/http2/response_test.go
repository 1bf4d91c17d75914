package http2

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	h2 "golang.org/x/net/http2"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// takeRequest waits for the head of the next request and returns its stream.
func (r *raw) takeRequest() uint32 {
	r.t.Helper()
	for {
		f, err := r.next()
		r.must(err)
		if h, ok := f.(*h2.MetaHeadersFrame); ok {
			return h.StreamID
		}
	}
}

// receive reads a whole response. heads are its statuses, the interim ones first.
func receive(s *ClientStream) (heads []int, body string, err error) {
	for {
		var r message.Response
		if err := s.Receive(&r); err != nil {
			return heads, "", err
		}
		if heads = append(heads, r.Status); !r.Interim() {
			p, err := readAll(s)
			return heads, string(p), err
		}
	}
}

// Malformed responses are rejected, and their connection stays open.
func TestMalformedResponsesAreRejected(t *testing.T) {
	c, nc := dial(t, Options{MaxHeaderBytes: 4 << 10, MaxFields: 20})
	r := rawServer(t, nc)
	for _, c2 := range []struct {
		name   string
		answer func(id uint32)
		want   string // statuses and body of a valid response
		head   bool
	}{
		{name: "no status", answer: func(id uint32) { r.headers(id, true, "x: y") }},
		{name: "a status of two digits", answer: func(id uint32) { r.headers(id, true, ":status: 20") }},
		{name: "a status of four digits", answer: func(id uint32) { r.headers(id, true, ":status: 2000") }},
		{name: "a signed status", answer: func(id uint32) { r.headers(id, true, ":status: +20") }},
		{name: "a status below 100", answer: func(id uint32) { r.headers(id, true, ":status: 099") }},
		{name: "a status above 599", answer: func(id uint32) { r.headers(id, true, ":status: 600") }},
		{name: "two statuses", answer: func(id uint32) { r.headers(id, true, ":status: 200", ":status: 200") }},
		{name: "a status after a field", answer: func(id uint32) { r.headers(id, true, "x: y", ":status: 200") }},
		{name: "a request's pseudo-header field", answer: func(id uint32) { r.headers(id, true, ":status: 200", ":path: /") }},
		{name: "101", answer: func(id uint32) { r.headers(id, false, ":status: 101") }},
		{name: "an interim response at the end", answer: func(id uint32) { r.headers(id, true, ":status: 103") }},
		{name: "an interim response with a length", answer: func(id uint32) { r.headers(id, false, ":status: 103", "content-length: 1") }},
		{name: "DATA before the head", answer: func(id uint32) { r.must(r.WriteData(id, true, []byte("x"))) }},
		{name: "DATA after an interim response", answer: func(id uint32) {
			r.headers(id, false, ":status: 100")
			r.must(r.WriteData(id, true, []byte("x")))
		}},
		{name: "a line end in a value", answer: func(id uint32) { r.headers(id, true, ":status: 200", "x: a\r\nb") }},
		{name: "upper case", answer: func(id uint32) { r.headers(id, true, ":status: 200", "X: a") }},
		{name: "transfer-encoding", answer: func(id uint32) { r.headers(id, false, ":status: 200", "transfer-encoding: chunked") }},
		{name: "two lengths", answer: func(id uint32) { r.headers(id, false, ":status: 200", "content-length: 1", "content-length: 1") }},
		{name: "a length without a body", answer: func(id uint32) { r.headers(id, true, ":status: 200", "content-length: 1") }},
		{name: "a body that is longer", answer: func(id uint32) {
			r.headers(id, false, ":status: 200", "content-length: 1")
			r.must(r.WriteData(id, true, []byte("xy")))
		}},
		{name: "a body that is shorter", answer: func(id uint32) {
			r.headers(id, false, ":status: 200", "content-length: 3")
			r.must(r.WriteData(id, true, []byte("xy")))
		}},
		{name: "a body that is shorter, with a trailer", answer: func(id uint32) {
			r.headers(id, false, ":status: 200", "content-length: 3")
			r.must(r.WriteData(id, false, []byte("xy")))
			r.headers(id, true, "x: y")
		}},
		{name: "a body of a 204", answer: func(id uint32) {
			r.headers(id, false, ":status: 204")
			r.must(r.WriteData(id, true, []byte("x")))
		}},
		{name: "a 204 with a length", answer: func(id uint32) { r.headers(id, true, ":status: 204", "content-length: 1") }},
		{name: "a body of a 304", answer: func(id uint32) {
			r.headers(id, false, ":status: 304", "content-length: 1")
			r.must(r.WriteData(id, true, []byte("x")))
		}},
		{name: "a body for HEAD", head: true, answer: func(id uint32) {
			r.headers(id, false, ":status: 200", "content-length: 1")
			r.must(r.WriteData(id, true, []byte("x")))
		}},
		{name: "a second final head", answer: func(id uint32) {
			r.headers(id, false, ":status: 200")
			r.headers(id, false, ":status: 200")
		}},
		{name: "a status in a trailer", answer: func(id uint32) {
			r.headers(id, false, ":status: 200")
			r.headers(id, true, ":status: 200")
		}},
		{name: "a head that is too large", answer: func(id uint32) {
			r.headers(id, true, ":status: 200", "x: "+strings.Repeat("a", 5000))
		}},
		{name: "too many fields", answer: func(id uint32) {
			r.headers(id, true, slices.Concat([]string{":status: 200"}, slices.Repeat([]string{"x: y"}, 20))...)
		}},
		{name: "a trailer that is too large", answer: func(id uint32) {
			r.headers(id, false, ":status: 200")
			r.headers(id, true, "x: "+strings.Repeat("a", 5000))
		}},
		{name: "interim responses without end", answer: func(id uint32) {
			for range maxInterim + 1 {
				r.headers(id, false, ":status: 103")
			}
		}},
		{name: "reset in the middle", answer: func(id uint32) {
			r.headers(id, false, ":status: 200")
			r.must(r.WriteData(id, false, []byte("x")))
			r.must(r.WriteRSTStream(id, h2.ErrCodeNo))
		}},

		{name: "a valid response", want: "[200] hello", answer: func(id uint32) {
			r.headers(id, false, ":status: 200", "content-length: 5")
			r.must(r.WriteData(id, true, []byte("hello")))
		}},
		{name: "a response after interim responses", want: "[100 103 404] ", answer: func(id uint32) {
			r.headers(id, false, ":status: 100")
			r.headers(id, false, ":status: 103", "link: x")
			r.headers(id, true, ":status: 404")
		}},
		{name: "a trailer", want: "[200] hello", answer: func(id uint32) {
			r.headers(id, false, ":status: 200")
			r.must(r.WriteDataPadded(id, false, []byte("hello"), make([]byte, 9)))
			r.headers(id, true, "x: y")
		}},
		{name: "a 304 that describes a body", want: "[304] ", answer: func(id uint32) { r.headers(id, true, ":status: 304", "content-length: 9") }},
		{name: "an answer to HEAD", want: "[200] ", head: true, answer: func(id uint32) { r.headers(id, true, ":status: 200", "content-length: 9") }},
		{name: "a response that ends with an empty frame", want: "[204] ", answer: func(id uint32) {
			r.headers(id, false, ":status: 204")
			r.must(r.WriteData(id, true, nil))
		}},
	} {
		s := c.Open()
		if s == nil {
			t.Fatalf("%s: no room: %v", c2.name, c.Err())
		}
		q := get("/")
		if c2.head {
			q.Method = "HEAD"
		}
		if err := s.Send(q, true); err != nil {
			t.Fatalf("%s: %v", c2.name, err)
		}
		id := r.takeRequest()
		c2.answer(id)
		heads, body, err := receive(s)
		s.Done()
		var e *Error
		switch {
		case c2.want == "" && (!errors.As(err, &e) || e.Connection || errors.Is(err, ErrUnprocessed) || !e.Remote && e.Reason == ""):
			t.Errorf("%s: %v %q, %v", c2.name, heads, body, err)
		case c2.want != "" && (err != nil || strings.Join(strings.Fields(c2.want), " ") != strings.TrimSpace(sprint(heads)+" "+body)):
			t.Errorf("%s: %v %q, %v", c2.name, heads, body, err)
		}
	}
}

func sprint(heads []int) string {
	var b strings.Builder
	b.WriteByte('[')
	for i, h := range heads {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(statusText(h))
	}
	b.WriteByte(']')
	return b.String()
}

// Some servers send connection fields of HTTP/1.1. They are dropped.
func TestConnectionFieldsOfResponsesAreDropped(t *testing.T) {
	c, nc := dial(t, Options{})
	r := rawServer(t, nc)
	s := c.Open()
	defer s.Done()
	if err := s.Send(get("/"), true); err != nil {
		t.Fatal(err)
	}
	r.headers(r.takeRequest(), true, ":status: 426", "connection: Upgrade", "upgrade: websocket", "keep-alive: timeout=5", "proxy-connection: close", "x: y")
	var head message.Response
	if err := s.Receive(&head); err != nil || head.Status != 426 || !slices.Equal(head.Fields, message.Fields{{Name: "x", Value: "y"}}) {
		t.Errorf("%+v %v", head, err)
	}
}

func TestTheDeclaredLengthOfAHeadResponseIsKept(t *testing.T) {
	c, nc := dial(t, Options{})
	r := rawServer(t, nc)
	s := c.Open()
	defer s.Done()
	q := get("/")
	q.Method = "HEAD"
	if err := s.Send(q, true); err != nil {
		t.Fatal(err)
	}
	r.headers(r.takeRequest(), true, ":status: 200", "content-length: 9", "x: y")
	var head message.Response
	if err := s.Receive(&head); err != nil || head.Declared != 9 || head.Length != 0 {
		t.Errorf("%+v %v", head, err)
	}
	if _, err := s.Read(); err != io.EOF {
		t.Error(err)
	}
}

// A connection error of a server ends the connection.
func TestServerErrorsEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(r *raw)
		code h2.ErrCode
	}{
		{"a MAX_FRAME_SIZE of 0", func(r *raw) { _ = r.WriteSettings(h2.Setting{ID: h2.SettingMaxFrameSize}) }, h2.ErrCodeProtocol},
		{"an initial window too large", func(r *raw) { _ = r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 1 << 31}) }, h2.ErrCodeFlowControl},
		{"windows that grow too large", func(r *raw) {
			_ = r.WriteWindowUpdate(1, maxWindow-firstWindow)
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: firstWindow + 1})
		}, h2.ErrCodeFlowControl},
		{"ENABLE_PUSH of 1", func(r *raw) { _ = r.WriteSettings(h2.Setting{ID: h2.SettingEnablePush, Val: 1}) }, h2.ErrCodeProtocol},
		{"extended CONNECT revoked", func(r *raw) {
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 1})
			_ = r.WriteSettings(h2.Setting{ID: h2.SettingEnableConnectProtocol, Val: 0})
		}, h2.ErrCodeProtocol},
		{"a PUSH_PROMISE", func(r *raw) {
			_ = r.WritePushPromise(h2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true, BlockFragment: r.encode(simple...)})
		}, h2.ErrCodeProtocol},
		{"a stream opened by the server", func(r *raw) { r.headers(2, true, ":status: 200") }, h2.ErrCodeProtocol},
		{"a response without a request", func(r *raw) { r.headers(3, true, ":status: 200") }, h2.ErrCodeProtocol},
		{"DATA without a request", func(r *raw) { _ = r.WriteData(3, true, nil) }, h2.ErrCodeProtocol},
		{"a block that cannot be decoded", func(r *raw) {
			_ = r.WriteHeaders(h2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff}, EndHeaders: true})
		}, h2.ErrCodeCompression},
		{"a frame too large", func(r *raw) { _ = r.WriteRawFrame(h2.FrameData, 0, 1, make([]byte, maxFrame+1)) }, h2.ErrCodeFrameSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			client, nc := dial(t, Options{})
			r := rawServer(t, nc)
			s := client.Open()
			defer s.Done()
			if err := s.Send(get("/"), true); err != nil {
				t.Fatal(err)
			}
			r.takeRequest()
			c.send(r)
			if got := r.outcome(1); got != "GOAWAY "+c.code.String() {
				t.Errorf("%s", got)
			}
			var head message.Response
			var e *Error
			if err := s.Receive(&head); !errors.As(err, &e) || !e.Connection || e.Code != c.code || errors.Is(err, ErrUnprocessed) {
				t.Errorf("%v", err)
			}
			if client.CanOpen() || client.Open() != nil {
				t.Error("the connection accepts further requests")
			}
		})
	}
}
