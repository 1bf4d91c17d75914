package splice_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/splice"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

// BenchmarkMessage sends a message and its echo through a splice. Allocations include
// the whole process, and are zero in a steady state.
func BenchmarkMessage(b *testing.B) {
	ca := certstest.NewCA(b)
	for _, version := range []uint16{0, tls.VersionTLS13} {
		for _, size := range []int{64, 16 << 10, 1 << 20} {
			name := "plain"
			if version != 0 {
				name = tls.VersionName(version)
			}
			b.Run(fmt.Sprintf("%s, %d bytes", name, size), func(b *testing.B) {
				e := newEngine(b, 0)
				defer e.Close()
				client, upstream := connect(b, "tcp"), connect(b, "tcp")
				var back, echo net.Conn = upstream.near, upstream.far
				if version != 0 {
					back, echo = upstream.secure(b, ca, version)
				}
				done := make(chan splice.Result, 1)
				s := e.Start(client.near, back, splice.Options{
					Idle: time.Hour, Linger: time.Hour, Done: func(r splice.Result) { done <- r },
				})
				buf := make([]byte, 64<<10)
				go io.CopyBuffer(struct{ io.Writer }{echo}, struct{ io.Reader }{echo}, buf)
				sent, got := make([]byte, size), make([]byte, size)
				wrote := make(chan error, 1)
				b.SetBytes(2 * int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if size > 16<<10 { // the kernel accepts a smaller message at once
						go func() { _, err := client.far.Write(sent); wrote <- err }()
					} else {
						_, err := client.far.Write(sent)
						wrote <- err
					}
					if _, err := io.ReadFull(client.far, got); err != nil {
						b.Fatal(err)
					}
					if err := <-wrote; err != nil {
						b.Fatal(err)
					}
				}
				s.Cut(splice.Shutdown, nil)
				<-done
			})
		}
	}
}

// A splice begins and ends.
func BenchmarkStart(b *testing.B) {
	e := newEngine(b, 0)
	defer e.Close()
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		client, upstream := connect(b, "tcp"), connect(b, "tcp")
		done := make(chan splice.Result, 1)
		b.StartTimer()
		s := e.Start(client.near, upstream.near, splice.Options{
			Idle: time.Hour, Linger: time.Hour, Done: func(r splice.Result) { done <- r },
		})
		s.Cut(splice.Shutdown, nil)
		<-done
		b.StopTimer()
		client.far.Close()
		upstream.far.Close()
		b.StartTimer()
	}
}
