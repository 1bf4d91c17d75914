package l7

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/certs"
)

// An upgraded connection is recorded at its end, with its bytes.
func TestARecordOfAnUpgrade(t *testing.T) {
	w := newTestbed(t)
	back := w.back(backs.HTTP1, w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi")
		_, _ = io.ReadFull(c, make([]byte, 4))
		fmt.Fprint(c, "bye")
		_ = c.(*tls.Conn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	}))
	for name, secure := range map[string]*certs.Servers{"spliced": nil, "spliced from TLS": w.listenerTLS()} {
		t.Run(name, func(t *testing.T) {
			s, front, end := w.recorded(fixed(&Table{TLS: secure, Default: to(back)}))
			c := w.dial(front)
			if secure != nil {
				tc := tls.Client(c.Conn, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
				c = &rawConn{tc, bufio.NewReader(tc)}
			}
			c.send("GET /chat HTTP/1.1", "Host: localhost", "Connection: Upgrade", "Upgrade: websocket")
			res, err := http.ReadResponse(c.r, nil)
			if err != nil || res.StatusCode != 101 {
				t.Fatal(res, err)
			}
			if n := s.Stats().Durations[1].Count(); n != 0 {
				t.Error("the upgraded request is counted before it has ended")
			}
			fmt.Fprint(c, "ping")
			if got, err := io.ReadAll(c.r); string(got) != "hibye" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
				_ = h.CloseWrite()
			}
			eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
			end()["/chat"].want(t, record{"code": 101, "upgrade": "websocket", "ended": "closed", "reason": nil,
				"bytes_from_client": 4, "bytes_to_client": 5, "upstream_tls_version": "TLS 1.3"}, "upstream_head_ms", "duration_ms")
			if n := s.Stats().Durations[1].Count(); n != 1 {
				t.Errorf("%d upgraded requests are counted", n)
			}
		})
	}
}

func TestARecordOfAWebSocketOverHTTP2(t *testing.T) {
	w := newTestbed(t)
	s, front, end := w.recorded(fixed(&Table{Default: to(w.back(backs.HTTP1, w.raw(w.serverTLS("http/1.1"), func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]))
		_, _ = io.Copy(io.Discard, c)
		fmt.Fprint(c, "bye")
		_ = c.(*tls.Conn).CloseWrite()
	})))}))
	client := w.dial2(front)
	stream := client.Open()
	var head message.Response
	eventually(t, "the gateway's settings", func() bool {
		err := stream.Send(&message.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "a.test", Target: "/chat", Length: -1}, false)
		if err != nil {
			stream.Done()
			stream = client.Open()
		}
		return err == nil
	})
	_ = stream.Flush()
	if err := stream.Receive(&head); err != nil || head.Status != 200 {
		t.Fatal(head.Status, err)
	}
	_ = stream.Write([]byte("frames"))
	_ = stream.End(nil)
	if got := rest(stream); got != "bye end" {
		t.Errorf("%q", got)
	}
	stream.Done()
	eventually(t, "the request has ended", func() bool { return s.Stats().InFlight == 0 })
	end()["/chat"].want(t, record{"code": 200, "method": "GET", "protocol": "HTTP/2.0", "upgrade": "websocket", "ended": "closed",
		"bytes_from_client": 6, "bytes_to_client": 3})
	if d := s.Stats().Durations; d[1].Count() != 1 || d[2].Count() != 0 {
		t.Errorf("durations %+v", d)
	}
}
