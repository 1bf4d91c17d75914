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
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// canned serves an upstream's connections without allocating: it answers each
// request with the same response. A request ends in an empty line.
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

// BenchmarkSmallRequestAlone measures the total cost of a small request: client
// and upstream allocate nothing.
func BenchmarkSmallRequestAlone(b *testing.B) {
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\nServer: x\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n%01024d", 0)
	for _, name := range []string{"plaintext upstream", "TLS upstream", "TLS upstream, access log"} {
		b.Run(name, func(b *testing.B) {
			w := newTestbed(b)
			secure := name != "plaintext upstream"
			var log *accesslog.Logger
			if strings.HasSuffix(name, "access log") {
				var err error
				if log, err = accesslog.Open(accesslog.Options{Path: filepath.Join(b.TempDir(), "access.log")}); err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() { _ = log.Close(context.Background()) })
			}
			var back *backs.Pools
			if secure {
				back = w.back(backs.HTTP1, w.raw(w.serverTLS(), canned(response)))
			} else {
				back = w.newBack(backs.Options{Upstream: plaintext(w.raw(nil, canned(response)))})
			}
			s := New(Options{Table: fixed(&Table{Default: to(back)}), AccessLog: log})
			c := w.dial(w.serve(s))
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

// BenchmarkLargeResponseAlone measures the total cost of 4 MiB from a TLS
// upstream to a plaintext client.
func BenchmarkLargeResponseAlone(b *testing.B) {
	const size, piece = 4 << 20, 32 << 10
	chunks := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
	for range size / piece {
		chunks = fmt.Appendf(chunks, "%x\r\n%0*d\r\n", piece, piece, 0)
	}
	for name, response := range map[string][]byte{
		"sized":     fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%0*d", size, size, 0),
		"in chunks": append(chunks, "0\r\n\r\n"...),
	} {
		b.Run(name, func(b *testing.B) {
			w := newTestbed(b)
			s := New(Options{Table: fixed(&Table{Default: to(w.back(backs.HTTP1, w.raw(w.serverTLS(), canned(response))))})})
			c := w.dial(w.serve(s))
			_ = c.SetDeadline(time.Time{})
			buf := make([]byte, 128<<10)
			get := func() {
				c.send("GET / HTTP/1.1", "Host: a.example")
				for n, end := 0, size; n < end; {
					m, err := c.Conn.Read(buf)
					if err != nil {
						b.Fatal(err)
					}
					if n == 0 {
						end = bytes.Index(buf[:m], []byte("\r\n\r\n")) + 4 + size
						if name == "in chunks" {
							end += len("8000\r\n\r\n")*size/piece + len("0\r\n\r\n")
						}
					}
					n += m
				}
			}
			get()
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				get()
			}
			b.StopTimer()
			c.Close()
		})
	}
}
