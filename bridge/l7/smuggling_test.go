package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
	"golang.org/x/net/http2"
)

// Each row is sent with a request for /next directly after it. The upstream
// must receive one request with this body, followed by /next; or it must
// receive no request, and the connection must end.
func TestOneRequestInIsOneRequestOut(t *testing.T) {
	const refused = "refused"
	for _, c := range []struct{ name, lines, body string }{
		{"a length", "Content-Length: 5\r\n\r\nhello", "hello"},
		{"chunks", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hello"},
		{"chunks with extensions", "Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0;c\r\n\r\n", "hello"},
		{"chunks with leading zeros", "Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n", "hello"},
		{"misspelled Content-Length fields", "Content_Length: 5\r\nX-Content-Length: 5\r\n\r\n", ""},
		{"two equal lengths", "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", refused},
		{"chunks and a length", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused},
		{"a length and chunks", "Transfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n0\r\n\r\n", refused},
		{"a folded field", "X: a\r\n Content-Length: 5\r\n\r\n", refused},
		{"bare line feeds", "X: a\nContent-Length: 5\n\nhello", refused},
		{"two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", refused},
		{"a list of lengths", "Content-Length: 5, 5\r\n\r\nhello", refused},
		{"a length with a sign", "Content-Length: +5\r\n\r\nhello", refused},
		{"a length in hexadecimal", "Content-Length: 0x5\r\n\r\nhello", refused},
		{"a negative length", "Content-Length: -5\r\n\r\nhello", refused},
		{"a blank before the colon", "Content-Length : 5\r\n\r\nhello", refused},
		{"a bare carriage return", "X: a\rContent-Length: 5\r\n\r\nhello", refused},
		{"a NUL", "X: a\x00\r\nContent-Length: 5\r\n\r\nhello", refused},
		{"two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", refused},
		{"a coding that is not known", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", refused},
		{"a coding after a vertical tab", "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", refused},
		{"identity", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", refused},
		{"a chunk size with 0x", "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", refused},
		{"a chunk size with a sign", "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", refused},
		{"a line feed in a chunk extension", "Transfer-Encoding: chunked\r\n\r\n5;\na\r\nhello\r\n0\r\n\r\n", refused},
		{"line feeds around chunks", "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", refused},
		{"a chunk that is too long", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", refused},
		{"another host", "Host: b\r\n\r\n", refused},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTestbed(t)
			seen := make(chan string, 10)
			_, address := w.plain(w.back(backs.HTTP1, w.server(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				b, err := io.ReadAll(r.Body)
				if err == nil {
					seen <- r.Method + " " + r.URL.Path + " " + string(b)
				}
			}))))
			raw := w.dial(address)
			fmt.Fprintf(raw, "POST /first HTTP/1.1\r\nHost: a\r\n%sGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", c.lines)
			answers, _ := io.ReadAll(raw.r)
			var got []string
			for len(seen) > 0 {
				got = append(got, <-seen)
			}
			want, code := []string{"POST /first " + c.body, "GET /next "}, "200"
			if c.body == refused {
				want, code = nil, "400 501"
			}
			if !slices.Equal(got, want) {
				t.Errorf("the upstream got %q, want %q", got, want)
			}
			if n := bytes.Count(answers, []byte("HTTP/1.1 ")); n != max(len(want), 1) || !strings.Contains(code, string(answers[9:12])) {
				t.Errorf("answered %q", answers)
			}
		})
	}
}

func TestConnectionsWithBytesAfterTheResponseAreNotReused(t *testing.T) {
	for name, response := range map[string]string{
		"a second response":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON",
		"a body after a 204":  "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nPOISON",
		"two lengths":         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 8\r\n\r\nokPOISON",
		"a length and chunks": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nPOISON",
		"a switch to another protocol without a request": "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nPOISON",
	} {
		t.Run(name, func(t *testing.T) {
			w := newTestbed(t)
			_, address := w.plain(w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if req.URL.Path == "/bad" {
						fmt.Fprint(c, response)
					} else {
						fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
					}
				}
			})))
			for range 5 {
				if res, err := w.browser().Get("http://" + address + "/bad"); err == nil {
					b, _ := io.ReadAll(res.Body)
					res.Body.Close()
					if strings.Contains(string(b), "POISON") {
						t.Errorf("%q", b)
					}
				}
				// The gateway answers 502 if it sent the request before it read the rest.
				code, body := w.get(w.browser(), "http://"+address+"/good")
				if got := fmt.Sprint(code, body); got != "200good" && got != "502bad gateway\n" {
					t.Errorf("%q", got)
				}
			}
		})
	}
}

func TestZeroFrameSizeIsABadGateway(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP2, w.raw(w.serverTLS("h2"), func(c net.Conn) {
		if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
			return
		}
		_ = http2.NewFramer(c, c).WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 0})
		_, _ = io.Copy(io.Discard, c)
	})))
	res, err := w.browser().Post("http://"+address, "text/plain", strings.NewReader(strings.Repeat("x", 100000)))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 502 {
		t.Errorf("%d", res.StatusCode)
	}
}

// An upstream that switches protocols without a request to do so, while it
// still receives a body, is rejected like any other unrequested switch.
func TestAnUpstreamThatSwitchesInTheMiddleOfABody(t *testing.T) {
	w := newTestbed(t)
	_, address := w.plain(w.back(backs.HTTP1, w.raw(w.serverTLS(), func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}
	})))
	for range 20 {
		c := w.dial(address)
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n")
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for range 100 {
				if _, err := c.Write(make([]byte, 10000)); err != nil {
					return
				}
			}
		}()
		if res, _ := c.answer(t, "POST"); res.StatusCode != 502 {
			t.Errorf("%d", res.StatusCode)
		}
		c.Close()
		<-sent
	}
}
