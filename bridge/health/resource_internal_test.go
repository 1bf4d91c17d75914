package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
)

// A script is a connection over which a peer sends known bytes, endlessly if
// configured.
type script struct {
	net.Conn
	head, endless string
	at, cut, got  int // cut is the maximum size of a read; 0: no limit
	fail          error
}

func (s *script) Read(p []byte) (int, error) {
	if s.cut > 0 {
		p = p[:min(len(p), s.cut)]
	}
	n := copy(p, s.head[min(s.at, len(s.head)):])
	for s.endless != "" && n < len(p) {
		off := (s.at + n - len(s.head)) % len(s.endless)
		n += copy(p[n:], s.endless[off:])
	}
	s.at += n
	s.got += n
	if n == 0 {
		if s.fail != nil {
			return 0, s.fail
		}
		return 0, io.EOF
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// ask runs a health check over a script and returns its result.
func (s *script) ask(t testing.TB, checkResponse func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(context.Background(), "GET", "http://up.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	return send1(s, req, checkResponse)
}

// numbered returns n distinct lines.
func numbered(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// The number of bytes that an endpoint sends bounds the memory and time of a health
// check, and the check reads a limited number of them.
func TestTheCostOfAnHTTPAnswerIsBoundedByItsLength(t *testing.T) {
	const ok, chunked = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	contains := HTTPOptions{Contains: "never there", Codes: []Codes{{200, 299}}}
	fields := alloctest.Bound{Memory: 40, CPU: 100 * time.Nanosecond,
		Reason: "net/http keeps each field in a map, whatever its length; the header is 32 KiB at most"}
	for _, c := range []struct {
		name          string
		head, endless string
		cut           int
		bound         alloctest.Bound
	}{
		{name: "one long field", head: ok + "A: ", endless: "x"},
		{name: "short fields without end", head: ok, endless: "A:\r\n", bound: fields},
		{name: "short fields of many names", head: ok + numbered(9000, "%x:\r\n") + "\r\n", bound: fields},
		{name: "a status line without end", head: "HTTP/1.1 200 ", endless: "x"},
		{name: "only spaces", endless: " "},
		{name: "interim responses without end", endless: "HTTP/1.1 103 Early Hints\r\n\r\n"},
		{name: "a body without end", head: ok + "\r\n", endless: "body "},
		{name: "a body longer than its Content-Length", head: ok + "Content-Length: 5\r\n\r\n", endless: "body "},
		{name: "chunks of one byte", head: chunked, endless: "1\r\nx\r\n"},
		{name: "long extensions of chunks", head: chunked, endless: "1;" + strings.Repeat("x", 4000) + "\r\nx\r\n"},
		{name: "one byte at a time", head: ok + "\r\n", endless: "body ", cut: 1, bound: alloctest.Bound{CPU: 200 * time.Nanosecond,
			Reason: "each byte is a read of its own"}},
		{name: "trailers without end", head: chunked + "0\r\n", endless: "A: b\r\n", bound: fields},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := func() *script {
				s := &script{head: c.head, endless: c.endless, cut: c.cut}
				if err := s.ask(t, contains.checkResponse); err == nil {
					t.Error("the check passed")
				}
				return s
			}
			got := run().got
			if most := 3*maxBody + maxHeader; got > most {
				t.Errorf("%d bytes are read, want %d at most", got, most)
			}
			alloctest.WantCost(t, got, c.bound, func() { run() })
		})
	}
}

// The message of a gRPC answer is read in time linear in its length.
func TestTheCostOfAGRPCAnswerIsBoundedByItsLength(t *testing.T) {
	framed := func(message []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	}
	for name, message := range map[string][]byte{
		"many numbers":               bytes.Repeat([]byte{1 << 3, 2}, maxMessage/2-5),
		"many empty fields":          bytes.Repeat([]byte{2<<3 | 2, 0}, maxMessage/2-5),
		"long numbers":               bytes.Repeat([]byte{1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, maxMessage/10-1),
		"a length that is too large": append(bytes.Repeat([]byte{1 << 3, 2}, 100), 2<<3|2, 0xff, 0xff, 0xff, 0xff, 0x0f),
	} {
		t.Run(name, func(t *testing.T) {
			p := framed(message)
			const times = 100 // a single answer is too small to measure
			alloctest.WantCost(t, times*len(p), alloctest.Bound{}, func() {
				for range times {
					_, _ = servingStatus(p)
				}
			})
		})
	}
}

// If an answer is cut off at any point and in any way, the check fails with an
// error, without a panic. Only the complete answer passes.
func TestAnIncompleteAnswerIsAFailure(t *testing.T) {
	whole := "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\nT: u\r\n\r\n"
	checkResponse := (&HTTPOptions{Contains: "ready", Codes: []Codes{{200, 299}}}).checkResponse
	end := strings.Index(whole, "ready") + len("ready") // the body contains the text
	for _, fail := range []error{io.EOF, io.ErrUnexpectedEOF, errors.New("reset")} {
		for at := range len(whole) + 1 {
			for _, cut := range []int{0, 1} {
				s := &script{head: whole[:at], fail: fail, cut: cut}
				if err := s.ask(t, checkResponse); (err == nil) != (at >= end) {
					t.Errorf("after %d bytes, %v: %v", at, fail, err)
				}
			}
		}
	}
}
