package l7

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/accesslog"
)

// canned serves an upstream's connections without allocating: it answers each
// request, which ends in an empty line, with the same response.
func canned(response []byte) func(net.Conn) {
	return func(c net.Conn) {
		buf := make([]byte, 64<<10)
		n := 0
		for {
			m, err := c.Read(buf[n:])
			if err != nil {
				return
			}
			if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
				n = 0
				if _, err := c.Write(response); err != nil {
					return
				}
			}
		}
	}
}

// What a small request costs in all: client and upstream allocate nothing.
func BenchmarkSmallRequestAlone(b *testing.B) {
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n%01024d", 0)
	for _, name := range []string{"plaintext upstream", "TLS upstream", "TLS upstream, access log"} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			secure := name != "plaintext upstream"
			var log *accesslog.Logger
			if strings.HasSuffix(name, "access log") {
				var err error
				if log, err = accesslog.Open(accesslog.Options{Path: filepath.Join(b.TempDir(), "access.log")}); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { _ = log.Close(context.Background()) })
			}
			var back *Back
			if secure {
				back = w.back(HTTP1, w.raw(w.serverTLS(), canned(response)))
			} else {
				back = w.newBack(BackOptions{Upstream: plaintext(w.raw(nil, canned(response)))})
			}
			s := New(Options{Table: fixed(&Table{Default: to(back)}), AccessLog: log})
			ln := listen(b)
			done := make(chan error, 1)
			go func() { done <- s.Serve(ln) }()
			b.Cleanup(func() { _ = s.Shutdown(context.Background()); <-done })
			c := w.dial(ln.Addr().String())
			_ = c.SetDeadline(time.Time{})
			request := []byte("GET /some/path?query=1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: x\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n")
			buf := make([]byte, 4096)
			roundTrip := func() int {
				if _, err := c.Write(request); err != nil {
					b.Fatal(err)
				}
				n := 0
				for {
					m, err := c.Conn.Read(buf[n:])
					if err != nil {
						b.Fatal(err)
					}
					n += m
					if end := bytes.Index(buf[:n], []byte("\r\n\r\n")); end >= 0 && n == end+4+1024 {
						return n
					}
				}
			}
			roundTrip()
			b.ReportAllocs()
			for b.Loop() {
				roundTrip()
			}
			b.StopTimer()
			c.Close()
			_, _ = io.Copy(io.Discard, c.Conn)
		})
	}
}
