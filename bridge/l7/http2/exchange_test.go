package http2

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestAnExchangeBetweenBothRoles(t *testing.T) {
	c, _ := connected(t, Options{}, Options{}, echo)
	for _, body := range []string{"", "hello", strings.Repeat("0123456789", 100_000)} {
		s := c.Open()
		if s == nil {
			t.Fatal("no room")
		}
		r := post("/there?q=1")
		r.Fields = message.Fields{{Name: "X-Upper", Value: "a"}}
		sent := make(chan error, 1)
		go func() {
			err := s.Send(r, false)
			if err == nil && body != "" {
				err = s.Write([]byte(body))
			}
			if err == nil {
				err = s.End(nil)
			}
			sent <- err
		}()
		var resp message.Response
		if err := s.Receive(&resp); err != nil {
			t.Fatal(err)
		}
		if path, _ := resp.Fields.Get("x-path"); resp.Status != 200 || path != "/there?q=1" || resp.Length != -1 {
			t.Errorf("%+v", resp)
		}
		got, err := readAll(s)
		if err != nil || string(got) != body {
			t.Errorf("%d bytes of %d came back, %v", len(got), len(body), err)
		}
		if end, _ := s.Trailer().Get("x-end"); end != "yes" {
			t.Errorf("trailer %q", s.Trailer())
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		s.Done()
	}
	if n := c.Streams(); n != 0 {
		t.Errorf("%d streams left", n)
	}
}

// transport returns a net/http client that uses a connection.
func transport(t *testing.T, nc net.Conn) *http.Transport {
	t.Helper()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil }}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// A singleListener is a listener that returns one connection.
type singleListener struct {
	net.Listener
	conns chan net.Conn
}

func (l *singleListener) Accept() (net.Conn, error) {
	nc, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return nc, nil
}
func (l *singleListener) Close() error   { return nil }
func (l *singleListener) Addr() net.Addr { return &net.TCPAddr{} }

func TestServerWithGosClient(t *testing.T) {
	nc, _ := serve(t, Options{}, func(s *ServerStream) {
		r := s.Request()
		switch r.Target {
		case "/echo":
			echo(s)
		case "/early":
			_ = s.Inform(&message.Response{Status: 103, Fields: message.Fields{{Name: "Link", Value: "</a>"}}})
			_ = s.Respond(&message.Response{Status: 204}, true)
		case "/head":
			_ = s.Respond(&message.Response{Status: 200, Declared: 77}, true)
		case "/sized":
			_ = s.Respond(&message.Response{Status: 200, Length: 5}, false)
			_ = s.Write([]byte("he"))
			_ = s.Write([]byte("llo"))
			_ = s.End(nil)
		case "/refuse":
			_ = s.Respond(&message.Response{Status: 413, Length: 0}, true)
		}
	})
	c := transport(t, nc)

	body := strings.Repeat("x", 300_000)
	req, _ := http.NewRequest("POST", "http://a.test/echo", strings.NewReader(body))
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(resp.Body)
	if string(got) != body || err != nil || resp.Trailer.Get("X-End") != "yes" {
		t.Errorf("%d bytes, %v, trailer %v", len(got), err, resp.Trailer)
	}

	var early []int
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		early = append(early, code)
		return nil
	}}
	req, _ = http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), "GET", "http://a.test/early", nil)
	if resp, err = c.RoundTrip(req); err != nil || resp.StatusCode != 204 || fmt.Sprint(early) != "[103]" {
		t.Errorf("%v %v %v", resp, err, early)
	}
	req, _ = http.NewRequest("HEAD", "http://a.test/head", nil)
	if resp, err = c.RoundTrip(req); err != nil || resp.ContentLength != 77 {
		t.Errorf("%v %v", resp, err)
	}
	req, _ = http.NewRequest("GET", "http://a.test/sized", nil)
	if resp, err = c.RoundTrip(req); err != nil || resp.ContentLength != 5 {
		t.Fatalf("%v %v", resp, err)
	}
	if got, err = io.ReadAll(resp.Body); string(got) != "hello" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	// The response is complete while the client still sends.
	pr, pw := io.Pipe()
	defer pw.Close()
	req, _ = http.NewRequest("POST", "http://a.test/refuse", pr)
	if resp, err = c.RoundTrip(req); err != nil || resp.StatusCode != 413 {
		t.Fatalf("%v %v", resp, err)
	}
	if got, err = io.ReadAll(resp.Body); len(got) != 0 || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestClientWithGosServer(t *testing.T) {
	c, nc := dial(t, Options{})
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	listener := &singleListener{conns: make(chan net.Conn, 1)}
	listener.conns <- nc
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(103)
		case "/abort":
			_, _ = io.WriteString(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-End")
		w.Header().Set("X-Got", fmt.Sprint(r.Method, " ", r.Host, " ", r.ContentLength, " ", r.Header.Get("X-Field"), " ", r.Trailer.Get("x-more"), "."))
		_, _ = w.Write(body)
		w.Header().Set("X-End", "yes")
	})}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(listener) }()
	defer func() {
		c.Close()
		close(listener.conns) // server.Close waits for Accept to return
		server.Close()
		await(t, ended, "net/http's server to end")
	}()
	exchange := func(r *message.Request, body string, trailer message.Fields) (resp message.Response, early int, got []byte, err error) {
		s := c.Open()
		defer s.Done()
		if body == "" {
			err = s.Send(r, true)
		} else if err = s.Send(r, false); err == nil {
			if err = s.Write([]byte(body)); err == nil {
				err = s.End(trailer)
			}
		}
		for err == nil {
			if err = s.Receive(&resp); !resp.Interim() {
				break
			}
			early++
		}
		if err == nil {
			got, err = readAll(s)
		}
		return resp, early, got, err
	}
	r := post("/")
	r.Fields = message.Fields{{Name: "X-Field", Value: "v"}, {Name: "trailer", Value: "x-more"}}
	resp, _, got, err := exchange(r, "hello", message.Fields{{Name: "X-More", Value: "m"}})
	if v, _ := resp.Fields.Get("x-got"); err != nil || string(got) != "hello" || v != "POST a.test -1 v m." {
		t.Errorf("%+v %q %v", resp, got, err)
	}
	r.Length = 5
	if resp, _, _, err = exchange(r, "hello", nil); err != nil {
		t.Error(err)
	}
	if v, _ := resp.Fields.Get("x-got"); v != "POST a.test 5 v ." {
		t.Errorf("%+v", resp)
	}
	if resp, early, _, err := exchange(get("/early"), "", nil); err != nil || early != 1 || resp.Status != 200 {
		t.Errorf("%+v %d %v", resp, early, err)
	}
	r = get("/")
	r.Method = "HEAD"
	if resp, _, got, err := exchange(r, "", nil); err != nil || len(got) > 0 || resp.Length != 0 {
		t.Errorf("%+v %q %v", resp, got, err)
	}
	if _, _, got, err := exchange(get("/abort"), "", nil); err == nil {
		t.Errorf("an aborted response looks complete: %q", got)
	}
}

// Data sent on many streams at once, in pieces of any size, arrives unchanged.
func TestDataOfManyStreamsArrivesUnchanged(t *testing.T) {
	c, _ := connected(t, Options{MaxStreams: 40}, Options{MaxStreams: 40}, echo)
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for range 5 {
				s := c.Open()
				if s == nil {
					t.Error("no room")
					return
				}
				body := make([]byte, rnd.IntN(1<<uint(rnd.IntN(20))+1))
				for i := range body {
					body[i] = byte(rnd.Uint32())
				}
				sent := make(chan error, 1)
				pieces := rand.New(rand.NewPCG(uint64(i), 2))
				if err := s.Send(post("/"), false); err != nil {
					t.Error(err)
				}
				go func() {
					var err error
					for rest := body; len(rest) > 0 && err == nil; {
						n := min(len(rest), 1+pieces.IntN(40_000))
						err = s.Write(rest[:n])
						if pieces.IntN(2) == 0 {
							_ = s.Flush()
						}
						rest = rest[n:]
					}
					if err == nil {
						err = s.End(nil)
					}
					sent <- err
				}()
				var resp message.Response
				if err := s.Receive(&resp); err != nil {
					t.Error(err)
				}
				if got, err := readAll(s); err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes became %d: %v", len(body), len(got), err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				s.Done()
			}
		})
	}
	all.Wait()
}
