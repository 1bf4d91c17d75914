package http1

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestWrittenRequests(t *testing.T) {
	r := message.Request{Method: "POST", Authority: "a:1", Target: "/b?c", Fields: message.Fields{{Name: "X", Value: "y z"}, {Name: "empty"}}}
	for _, c := range []struct {
		f    Framing
		want string
	}{
		{Framing{}, "POST /b?c HTTP/1.1\r\nHost: a:1\r\nX: y z\r\nempty: \r\n\r\n"},
		{Framing{Body: Sized}, "POST /b?c HTTP/1.1\r\nHost: a:1\r\nContent-Length: 0\r\nX: y z\r\nempty: \r\n\r\n"},
		{Framing{Body: Sized, Length: 12345678901}, "POST /b?c HTTP/1.1\r\nHost: a:1\r\nContent-Length: 12345678901\r\nX: y z\r\nempty: \r\n\r\n"},
		{Framing{Body: InChunks, Length: 5, Close: true}, "POST /b?c HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nX: y z\r\nempty: \r\n\r\n"},
		{Framing{Trailers: true}, "POST /b?c HTTP/1.1\r\nHost: a:1\r\nTE: trailers\r\nConnection: TE\r\nX: y z\r\nempty: \r\n\r\n"},
		{Framing{Upgrade: "websocket", KeepAlive: true, Trailers: true},
			"POST /b?c HTTP/1.1\r\nHost: a:1\r\nUpgrade: websocket\r\nTE: trailers\r\nConnection: keep-alive, Upgrade, TE\r\nX: y z\r\nempty: \r\n\r\n"},
	} {
		got, err := AppendRequest([]byte("before"), &r, c.f)
		if err != nil || string(got) != "before"+c.want {
			t.Errorf("%+v: %q %v", c.f, got, err)
		}
	}
}

func TestWrittenResponses(t *testing.T) {
	fields := message.Fields{{Name: "X", Value: "y"}}
	for _, c := range []struct {
		status int
		f      Framing
		want   string
	}{
		{200, Framing{Body: Sized, Length: 5}, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\n"},
		{200, Framing{Body: InChunks, Close: true}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nX: y\r\n\r\n"},
		{200, Framing{Body: UntilClose}, "HTTP/1.1 200 OK\r\nConnection: close\r\nX: y\r\n\r\n"},
		{204, Framing{KeepAlive: true}, "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\nX: y\r\n\r\n"},
		{304, Framing{Body: Sized, Length: 5}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nX: y\r\n\r\n"},
		{103, Framing{}, "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n"},
		{101, Framing{Upgrade: "websocket"}, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n"},
		{599, Framing{}, "HTTP/1.1 599 \r\nX: y\r\n\r\n"},
	} {
		got, err := AppendResponse([]byte("before"), &message.Response{Status: c.status, Reason: "of the upstream", Fields: fields}, c.f)
		if err != nil || string(got) != "before"+c.want {
			t.Errorf("%d %+v: %q %v", c.status, c.f, got, err)
		}
	}
}

// fieldsThatCannotBeWritten are invalid in requests, responses and trailers.
var fieldsThatCannotBeWritten = []struct {
	field message.Field
	want  error
}{
	{message.Field{Name: "", Value: "y"}, errWriteName},
	{message.Field{Name: "X Y", Value: "y"}, errWriteName},
	{message.Field{Name: "X:", Value: "y"}, errWriteName},
	{message.Field{Name: "X\r\nY", Value: "y"}, errWriteName},
	{message.Field{Name: ":path", Value: "y"}, errWriteName},
	{message.Field{Name: "\u00e9", Value: "y"}, errWriteName},
	{message.Field{Name: "X", Value: "y\r\nZ: z"}, errWriteValue},
	{message.Field{Name: "X", Value: "y\n"}, errWriteValue},
	{message.Field{Name: "X", Value: "y\rz"}, errWriteValue},
	{message.Field{Name: "X", Value: "y\x00"}, errWriteValue},
	{message.Field{Name: "X", Value: " y"}, errWriteValue},
	{message.Field{Name: "X", Value: "y\t"}, errWriteValue},
	{message.Field{Name: "Content-Length", Value: "5"}, errWriteFraming},
	{message.Field{Name: "transfer-encoding", Value: "chunked"}, errWriteFraming},
	{message.Field{Name: "CONNECTION", Value: "close"}, errWriteFraming},
	{message.Field{Name: "Keep-Alive", Value: "y"}, errWriteFraming},
	{message.Field{Name: "Proxy-Connection", Value: "y"}, errWriteFraming},
	{message.Field{Name: "Upgrade", Value: "h2c"}, errWriteFraming},
	{message.Field{Name: "HTTP2-Settings", Value: "y"}, errWriteFraming},
	{message.Field{Name: "te", Value: "trailers"}, errWriteFraming},
}

func TestInvalidMessagesAreNotWritten(t *testing.T) {
	for _, c := range fieldsThatCannotBeWritten {
		fields := message.Fields{{Name: "A", Value: "b"}, c.field}
		if got, err := AppendRequest([]byte("before"), &message.Request{Method: "GET", Authority: "a", Target: "/", Fields: fields}, Framing{}); err != c.want || string(got) != "before" {
			t.Errorf("request with %q: %q %v", c.field, got, err)
		}
		if got, err := AppendResponse([]byte("before"), &message.Response{Status: 200, Fields: fields}, Framing{}); err != c.want || string(got) != "before" {
			t.Errorf("response with %q: %q %v", c.field, got, err)
		}
		if got, err := AppendLastChunk([]byte("before"), fields); err != c.want || string(got) != "before" {
			t.Errorf("trailer with %q: %q %v", c.field, got, err)
		}
	}
	for _, c := range []struct {
		name string
		r    message.Request
		f    Framing
		want error
	}{
		{"no method", message.Request{Target: "/", Authority: "a"}, Framing{}, errWriteMethod},
		{"a method with a blank", message.Request{Method: "GET /", Target: "/", Authority: "a"}, Framing{}, errWriteMethod},
		{"a method with a line break", message.Request{Method: "GET\r\n", Target: "/", Authority: "a"}, Framing{}, errWriteMethod},
		{"a method too long for any parser", message.Request{Method: strings.Repeat("a", 33), Target: "/", Authority: "a"}, Framing{}, errWriteMethod},
		{"CONNECT", message.Request{Method: "CONNECT", Target: "/", Authority: "a"}, Framing{}, errWriteMethod},
		{"no target", message.Request{Method: "GET", Authority: "a"}, Framing{}, errWriteTarget},
		{"a target with a blank", message.Request{Method: "GET", Target: "/ HTTP/1.1", Authority: "a"}, Framing{}, errWriteTarget},
		{"a target with a line break", message.Request{Method: "GET", Target: "/\r\nX: y", Authority: "a"}, Framing{}, errWriteTarget},
		{"an absolute target", message.Request{Method: "GET", Target: "http://a/", Authority: "a"}, Framing{}, errWriteTarget},
		{"a fragment", message.Request{Method: "GET", Target: "/#a", Authority: "a"}, Framing{}, errWriteTarget},
		{"an asterisk for GET", message.Request{Method: "GET", Target: "*", Authority: "a"}, Framing{}, errWriteTarget},
		{"no authority", message.Request{Method: "GET", Target: "/"}, Framing{}, errWriteAuthority},
		{"an authority with a line break", message.Request{Method: "GET", Target: "/", Authority: "a\r\nX: y"}, Framing{}, errWriteAuthority},
		{"an authority with a user", message.Request{Method: "GET", Target: "/", Authority: "u@a"}, Framing{}, errWriteAuthority},
		{"two authorities", message.Request{Method: "GET", Target: "/", Authority: "a,b"}, Framing{}, errWriteAuthority},
		{"a body that ends with the connection", message.Request{Method: "GET", Target: "/", Authority: "a"}, Framing{Body: UntilClose}, errWriteBody},
		{"a negative length", message.Request{Method: "GET", Target: "/", Authority: "a"}, Framing{Body: Sized, Length: -1}, errWriteLength},
		{"a line end in Upgrade", message.Request{Method: "GET", Target: "/", Authority: "a"}, Framing{Upgrade: "a\r\nX: y"}, errWriteUpgrade},
		{"a second Host", message.Request{Method: "GET", Target: "/", Authority: "a", Fields: message.Fields{{Name: "host", Value: "a"}}}, Framing{}, errWriteFraming},
	} {
		if got, err := AppendRequest([]byte("before"), &c.r, c.f); err != c.want || string(got) != "before" {
			t.Errorf("%s: %q %v", c.name, got, err)
		}
	}
	for _, c := range []struct {
		status int
		f      Framing
		want   error
	}{
		{0, Framing{}, errWriteStatus},
		{99, Framing{}, errWriteStatus},
		{600, Framing{}, errWriteStatus},
		{-200, Framing{}, errWriteStatus},
		{204, Framing{Body: Sized}, errWriteBody},
		{204, Framing{Body: UntilClose}, errWriteBody},
		{100, Framing{Body: InChunks}, errWriteBody},
		{304, Framing{Body: InChunks}, errWriteBody},
		{304, Framing{Body: UntilClose}, errWriteBody},
		{200, Framing{Body: Sized, Length: -1}, errWriteLength},
		{200, Framing{Trailers: true}, errWriteFraming},
		{101, Framing{}, errWriteUpgrade},
		{101, Framing{Upgrade: "x", Close: true}, errWriteUpgrade},
		{101, Framing{Upgrade: "x "}, errWriteUpgrade},
	} {
		if got, err := AppendResponse([]byte("before"), &message.Response{Status: c.status}, c.f); err != c.want || string(got) != "before" {
			t.Errorf("%d %+v: %q %v", c.status, c.f, got, err)
		}
	}
	if got, err := AppendLastChunk(nil, message.Fields{{Name: "Trailer", Value: "y"}}); err != errWriteFraming {
		t.Errorf("%q %v", got, err)
	}
	// A request's Host comes from its Authority; a response may contain Host.
	if got, err := AppendResponse(nil, &message.Response{Status: 304, Fields: message.Fields{{Name: "Host", Value: "a"}}}, Framing{}); err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestChunksAreReadAsTheyWereWritten(t *testing.T) {
	trailer := message.Fields{{Name: "A", Value: "b"}, {Name: "a", Value: ""}}
	var b []byte
	b = AppendChunk(b, []byte("hello, "))
	b = AppendChunk(b, nil) // appends nothing: an empty chunk would end the body
	b = append(AppendChunkSize(b, 300), strings.Repeat("x", 300)+ChunkEnd...)
	b, err := AppendLastChunk(b, trailer)
	if err != nil {
		t.Fatal(err)
	}
	data, rest, got, err := decode(Limits{}, string(b))
	if data != "hello, "+strings.Repeat("x", 300) || rest != "" || err != nil || !slices.Equal(got, trailer) {
		t.Errorf("%q %q %q %v", data, rest, got, err)
	}
	if b, err := AppendLastChunk(nil, nil); string(b) != "0\r\n\r\n" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("AppendChunkSize accepted 0")
		}
	}()
	AppendChunkSize(nil, 0)
}

func TestARequestDoesNotAllocate(t *testing.T) {
	var (
		s        Scan
		l        Limits
		request  Request
		response Response
		out      = make([]byte, 0, 4096)
		in, from = []byte(small), []byte(nginx)
	)
	alloctest.Want(t, "an exchange", 0, func() {
		if _, err := s.RequestEnd(in, &l); err != nil {
			t.Fatal(err)
		}
		if err := ParseRequest(small, &l, &request); err != nil {
			t.Fatal(err)
		}
		if _, err := AppendRequest(out, &request.Request, Framing{}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ResponseEnd(from, &l); err != nil {
			t.Fatal(err)
		}
		if err := ParseResponse(nginx, request.Method, &l, &response); err != nil {
			t.Fatal(err)
		}
		response.Fields.RemoveFunc(func(f message.Field) bool { return message.IsConnectionField(f.Name) })
		if _, err := AppendResponse(out, &response.Response, Framing{Body: Sized, Length: response.Length}); err != nil {
			t.Fatal(err)
		}
	})
	if !bytes.Contains(out[:cap(out)], []byte("Content-Length: 1024")) {
		t.Error("the writer wrote nothing")
	}
}
