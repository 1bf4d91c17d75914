package l7

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

const nextRequest = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

// nextArrives is the next request as the upstream receives it.
const nextArrives = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"

// Each request of the corpus, directly followed by another request, is sent to
// a plaintext listener and to a TLS listener, in one piece and byte by byte,
// with HTTP/1.1 and HTTP/2 upstreams. The upstream receives one well-formed
// request, or nothing.
func TestTheCorpusOfRequests(t *testing.T) {
	all := readCorpus(t, "requests.txt")
	for _, how := range []struct {
		name  string
		tls   bool
		size  int // bytes of a piece; 0: the whole request
		http2 bool
	}{{name: "in one piece"}, {name: "byte by byte", size: 1}, {name: "with TLS", tls: true}, {name: "to HTTP2", http2: true}} {
		t.Run(how.name, func(t *testing.T) {
			w := newTestbed(t)
			up := &recorder{http2: how.http2}
			var back *backs.Pools
			if how.http2 {
				back = w.back(backs.HTTP2, w.server(http.HandlerFunc(up.serveHTTP2), "h2"))
			} else {
				back = w.back(backs.HTTP1, w.raw(w.serverTLS(), up.serve))
			}
			named := back.Options()
			named.Host = ownName // becomes the Host of requests without one
			back = w.newBack(named)
			table := &Table{Default: to(back)}
			if how.tls {
				table.TLS = w.listenerTLS("http/1.1")
			}
			_, address := w.gateway(fixed(table))
			defer func() {
				eventually(t, "every connection with half a request is closed", func() bool { return up.unfinished() == 0 })
			}()
			for _, c := range all {
				if how.http2 && strings.Contains(c.want, "\r\nUpgrade: ") {
					continue // connect_test.go checks their outcome
				}
				t.Run(c.name, func(t *testing.T) {
					conn := w.corpusClient(t, address, how.tls)
					defer conn.Close()
					go send(conn, c.sent+nextRequest, how.size)
					c.checkRequest(t, up, conn)
				})
			}
		})
	}
	updateCorpus(t, "requests.txt", all)
}

// corpusClient connects to a gateway.
func (w *testbed) corpusClient(t *testing.T, address string, withTLS bool) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(testTimeout))
	if withTLS {
		c = tls.Client(c, &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost"})
	}
	return c
}

// send sends s in pieces. If it fails, the reader sees the end of the
// connection.
func send(c net.Conn, s string, size int) {
	if size == 0 || len(s) > 5000 {
		size = len(s)
	}
	for s != "" {
		n := min(size, len(s))
		if _, err := io.WriteString(c, s[:n]); err != nil {
			return
		}
		s = s[n:]
	}
}

// checkRequest compares the outcome of a request with its verdict.
func (c *corpusCase) checkRequest(t *testing.T, up *recorder, conn net.Conn) {
	codes, closed := answers(t, conn)
	requests, halves := up.take(t)
	var code string
	want, wantCodes := []string{}, []string{}
	verdict := c.verdict
	if after, ok := strings.CutPrefix(verdict, "served"); ok {
		wantCodes, want = append(wantCodes, "200"), append(want, c.want)
		if *update && !up.http2 && len(requests) > 0 {
			c.want, want[0] = requests[0], requests[0]
		}
		if verdict = strings.TrimPrefix(after, ", then "); verdict == "" {
			wantCodes, want = append(wantCodes, "200"), append(want, nextArrives)
		}
	}
	if n, _ := fmt.Sscanf(verdict, "refused %s", &code); n == 1 {
		wantCodes = append(wantCodes, code)
	}
	if n, _ := fmt.Sscanf(verdict, "broken %s", &code); n == 1 {
		wantCodes = append(wantCodes, code)
	}
	for _, half := range halves {
		// The request of an earlier case may arrive late.
		if !strings.HasPrefix(half, "POST /broken HTTP/1.1\r\n") {
			t.Errorf("the upstream got the beginning %q", half)
		}
	}
	if !closed {
		t.Error("the connection was not closed")
	}
	if strings.Join(codes, " ") != strings.Join(wantCodes, " ") {
		t.Errorf("%q was answered %q, want %q", c.sent, codes, wantCodes)
	}
	if up.http2 {
		for i := range want {
			want[i] = essence(t, want[i])
		}
	}
	if strings.Join(requests, "\n---\n") != strings.Join(want, "\n---\n") {
		t.Errorf("of %q the upstream got\n%s\nwant\n%s", c.sent, escape(">", strings.Join(requests, "")), escape(">", strings.Join(want, "")))
	}
}

// answers reads responses until the connection ends. It returns the status
// codes of the final responses, and whether the connection was closed properly.
func answers(t *testing.T, conn net.Conn) (codes []string, closed bool) {
	t.Helper()
	b, err := io.ReadAll(conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after %q: %v", b, err)
		return nil, false
	}
	s := string(b)
	for s != "" {
		code, n, err := plainResponse(s)
		if err != nil {
			t.Fatalf("answered %q: %v", s, err)
		}
		if s = s[n:]; code[0] != '1' {
			codes = append(codes, code)
		}
	}
	return codes, true
}

// plainResponse returns the status code and the length of the response at the
// beginning of s, whose body has a declared length or ends with the connection.
func plainResponse(s string) (code string, n int, err error) {
	head, body, whole := strings.Cut(s, "\r\n\r\n")
	if !whole || !strings.HasPrefix(head, "HTTP/1.1 ") || len(head) < 12 {
		return "", 0, errNotWhole
	}
	if code, n = head[9:12], len(head)+4; code[0] == '1' {
		return code, n, nil
	}
	length := 0
	for _, line := range strings.Split(head, "\r\n")[1:] {
		name, value, _ := strings.Cut(line, ": ")
		if strings.EqualFold(name, "Content-Length") {
			if _, err := fmt.Sscan(value, &length); err != nil {
				return "", 0, err
			}
		}
	}
	if len(body) < length { // the response to HEAD has no body
		return code, n, nil
	}
	return code, n + length, nil
}

// serveHTTP2 is a recorder's HTTP/2 handler. It compares the meaning of
// requests, because the bytes of HTTP/2 differ.
func (r *recorder) serveHTTP2(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the request was incomplete
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, fmt.Sprintf("%s %s of %s: %q", req.Method, req.RequestURI, req.Host, body))
	if req.Method == "HEAD" {
		w.Header().Set("Content-Length", "0")
	}
	_, _ = io.WriteString(w, "ok")
}

// essence returns the part of a request's plain form that also arrives over
// HTTP/2.
func essence(t *testing.T, plain string) string {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(plain)))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s of %s: %q", req.Method, req.RequestURI, req.Host, body)
}
