package http2

import (
	"io"
	"sync"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// unary answers as a gRPC server does: a head, one message, a trailer.
func unary(s *ServerStream) {
	for {
		if _, err := s.Read(); err != nil {
			break
		}
	}
	head := message.Response{Status: 200, Length: -1, Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}}}
	_ = s.Respond(&head, false)
	_ = s.Write(make([]byte, 64))
	_ = s.End(message.Fields{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""}})
}

// call makes a unary call.
func call(b *testing.B, c *ClientConn, request *message.Request, p []byte) {
	s := c.Open()
	if s == nil {
		b.Fatal("no room")
	}
	defer s.Done()
	if err := s.Send(request, false); err != nil {
		b.Fatal(err)
	}
	_ = s.Write(p)
	_ = s.End(nil)
	var head message.Response
	if err := s.Receive(&head); err != nil {
		b.Fatal(err)
	}
	for {
		if _, err := s.Read(); err == io.EOF {
			return
		} else if err != nil {
			b.Fatal(err)
		}
	}
}

func unaryRequest() *message.Request {
	r := post("/grpc.testing.BenchmarkService/UnaryCall")
	r.Trailers = true
	r.Fields = message.Fields{
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "grpc-go/1.85.0"},
		{Name: "grpc-timeout", Value: "19999m"}, {Name: "x-forwarded-for", Value: "127.0.0.1"}, {Name: "x-forwarded-proto", Value: "https"},
	}
	return r
}

func BenchmarkUnary(b *testing.B) {
	c, _ := connected(b, Options{}, Options{}, unary)
	r, p := unaryRequest(), make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		call(b, c, r, p)
	}
}

func BenchmarkUnary64AtOnce(b *testing.B) {
	c, _ := connected(b, Options{}, Options{}, unary)
	p := make([]byte, 64)
	b.ReportAllocs()
	var all sync.WaitGroup
	b.ResetTimer()
	for range 64 {
		all.Go(func() {
			r := unaryRequest()
			for range b.N / 64 {
				call(b, c, r, p)
			}
		})
	}
	all.Wait()
}

// Messages in both directions on one stream.
func BenchmarkStreaming(b *testing.B) {
	c, _ := connected(b, Options{}, Options{}, echo)
	s := c.Open()
	defer s.Done()
	if err := s.Send(unaryRequest(), false); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		_ = s.Write(p)
		_ = s.Flush()
		for n := 0; n < len(p); {
			q, err := s.Read()
			if err != nil {
				b.Fatal(err)
			}
			n += len(q)
		}
	}
}

func BenchmarkBulk(b *testing.B) {
	c, _ := connected(b, Options{}, Options{}, func(s *ServerStream) {
		for {
			if _, err := s.Read(); err != nil {
				_ = s.Respond(&message.Response{Status: 200}, true)
				return
			}
		}
	})
	s := c.Open()
	defer s.Done()
	if err := s.Send(post("/"), false); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 64<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
