package l7

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/http2"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// An HTTP/2 client gets a WebSocket from an HTTP/1.1 upstream.
func TestWebSocketsOverHTTP2(t *testing.T) {
	w := newTestbed(t)
	ended := make(chan string, 1)
	_, address := w.plain(w.back(backs.HTTP1, w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		in := bufio.NewReader(c)
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		if r.Method != "GET" || r.Host != "a.test" || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" ||
			r.Header.Get("Sec-WebSocket-Version") != "13" || r.ContentLength != 0 {
			t.Errorf("the upstream was asked %+v", r)
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		accept := base64.StdEncoding.EncodeToString(sum[:])
		switch r.URL.Path {
		case "/liar":
			accept = string('A'+(accept[0]-'A'+1)%26) + accept[1:] // always differs from the correct value
		case "/page":
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			return
		case "/no":
			fmt.Fprint(c, "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello", accept)
		p, err := io.ReadAll(in)
		ended <- fmt.Sprint(string(p), " ", err)
		fmt.Fprint(c, "bye")
	})))
	client := w.dial2(address)
	ask := func(protocol, path string) (s *http2.ClientStream, head message.Response) {
		t.Helper()
		eventually(t, "the gateway's settings", func() bool {
			s = client.Open()
			err := s.Send(&message.Request{Method: "CONNECT", Protocol: protocol, Scheme: "http", Authority: "a.test", Target: path, Length: -1,
				Fields: message.Fields{{Name: "sec-websocket-version", Value: "13"}, {Name: "sec-websocket-protocol", Value: "chat"}}}, false)
			if errors.Is(err, http2.ErrNoExtendedConnect) {
				s.Done()
				return false
			}
			_ = s.Flush()
			return true
		})
		if err := s.Receive(&head); err != nil {
			t.Fatal(err)
		}
		return s, head
	}
	s, head := ask("websocket", "/chat")
	if v, _ := head.Fields.Get("sec-websocket-protocol"); head.Status != 200 || head.Length != -1 || v != "chat" || head.Fields.Has("sec-websocket-accept") || head.Fields.Has("upgrade") {
		t.Errorf("%+v", head)
	}
	if p, err := s.Read(); string(p) != "hello" || err != nil {
		t.Errorf("%q %v", p, err)
	}
	_ = s.Write([]byte("frames"))
	_ = s.End(nil)
	if got := <-ended; got != "frames <nil>" {
		t.Errorf("the upstream got %q", got)
	}
	if got := rest(s); got != "bye end" {
		t.Errorf("%q", got)
	}
	s.Done()
	for _, c := range []struct {
		protocol, path string
		want           int
	}{{"websocket", "/liar", 502}, {"websocket", "/page", 502}, {"websocket", "/no", 403}, {"connect-udp", "/", 501}} {
		s, head := ask(c.protocol, c.path)
		if head.Status != c.want {
			t.Errorf("%s %s: %d", c.protocol, c.path, head.Status)
		}
		s.Done()
	}
}
