package http1

import (
	"testing"
)

const (
	small = "GET /index.html HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
	wrk   = "GET /1k HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
	nginx = "HTTP/1.1 200 OK\r\nServer: nginx/1.24.0\r\nDate: Mon, 23 Nov 2026 09:00:00 GMT\r\nContent-Type: application/octet-stream\r\n" +
		"Content-Length: 1024\r\nLast-Modified: Mon, 23 Nov 2026 08:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"65f1c2a0-400\"\r\nAccept-Ranges: bytes\r\n\r\n"
)

func benchRequest(b *testing.B, head string) {
	var s Scan
	var l Limits
	var r Request
	buf := []byte(head)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := s.RequestEnd(buf, &l); n != len(buf) {
			b.Fatal(n, err)
		}
		if err := ParseRequest(head, &l, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequestOfWrk(b *testing.B)  { benchRequest(b, wrk) }
func BenchmarkRequestOfCurl(b *testing.B) { benchRequest(b, small) }

func BenchmarkResponseOfNginx(b *testing.B) {
	var s Scan
	var l Limits
	var r Response
	buf := []byte(nginx)
	b.ReportAllocs()
	for b.Loop() {
		if n, err := s.ResponseEnd(buf, &l); n != len(buf) {
			b.Fatal(n, err)
		}
		if err := ParseResponse(nginx, "GET", &l, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteRequest(b *testing.B) {
	var r Request
	if err := ParseRequest(small, &Limits{}, &r); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendRequest(buf, &r.Request, Framing{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteResponse(b *testing.B) {
	var r Response
	if err := ParseResponse(nginx, "GET", &Limits{}, &r); err != nil {
		b.Fatal(err)
	}
	r.Fields.Remove("Connection")
	r.Fields.Remove("Content-Length")
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendResponse(buf, &r.Response, Framing{Body: Sized, Length: 1024}); err != nil {
			b.Fatal(err)
		}
	}
}
