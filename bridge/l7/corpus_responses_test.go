package l7

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/backs"
)

// A scripted upstream answers a request for /next with the number of its
// connection, and any other request as the current case says.
type scripted struct {
	script atomic.Pointer[script]
	conns  atomic.Int64
	last   atomic.Int64 // number of the connection that received the scripted response
}

type script struct {
	answer string
	size   int    // bytes of a piece; 0: the whole response
	end    string // "close" or "cut" the connection; "early": answer before the body
}

func (s *scripted) serve(c net.Conn) {
	number := s.conns.Add(1)
	buf, raw := make([]byte, 32<<10), ""
	for {
		n, err := c.Read(buf)
		if n == 0 && err != nil {
			return
		}
		raw += string(buf[:n])
		m, _, err := plainRequest(raw, nil)
		if played := s.script.Load(); err == errNotWhole && played != nil && played.end == "early" && strings.Contains(raw, "\r\n\r\n") {
			s.last.Store(number)
			send(c, played.answer, played.size)
			_, _ = io.Copy(io.Discard, c)
			return
		}
		if err != nil {
			continue
		}
		next := strings.Contains(raw[:m], " /next ")
		if raw = raw[m:]; next {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d", number)
			continue
		}
		played := s.script.Load()
		s.last.Store(number)
		send(c, played.answer, played.size)
		switch played.end {
		case "close":
			return
		case "cut":
			c.(*tls.Conn).NetConn().Close()
			return
		}
	}
}

// Each response of the corpus goes to a client of a plaintext listener and of a
// TLS listener, in one piece and byte by byte.
func TestTheCorpusOfResponses(t *testing.T) {
	all := readCorpus(t, "responses.txt")
	for _, how := range []struct {
		name string
		tls  bool
		size int
	}{{name: "in one piece"}, {name: "byte by byte", size: 1}, {name: "with TLS", tls: true}} {
		t.Run(how.name, func(t *testing.T) {
			w := newTestbed(t)
			up := new(scripted)
			table := &Table{Default: to(w.back(backs.HTTP1, w.raw(w.serverTLS(), up.serve)))}
			if how.tls {
				table.TLS = w.listenerTLS("http/1.1")
			}
			_, address := w.gateway(fixed(table))
			for _, c := range all {
				end, verdict, ok := strings.Cut(c.verdict, ": ")
				if !ok {
					end, verdict = "", c.verdict
				}
				if how.size == 1 && end == "" && strings.HasSuffix(verdict, "not again") {
					// Bytes sent one by one after a response may arrive after the next request
					// was sent, and then count as its answer. Only bytes that arrive together
					// with a response certainly are not the next response.
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					up.script.Store(&script{c.answer, how.size, end})
					w.checkResponse(t, c, verdict, address, how.tls, up)
				})
			}
		})
	}
	updateCorpus(t, "responses.txt", all)
}

// checkResponse compares the outcome of a response with its verdict.
func (w *testbed) checkResponse(t *testing.T, c *corpusCase, verdict, address string, withTLS bool, up *scripted) {
	conn := w.corpusClient(t, address, withTLS)
	defer conn.Close()
	request := c.sent
	if request == "" {
		request = "GET /case HTTP/1.1\r\nHost: a\r\n\r\n"
	}
	send(conn, request, 0)
	got, open, err := readReplies(t, conn, strings.HasPrefix(request, "HEAD"))
	code := ""
	if i := strings.LastIndex("\n"+got, "\nHTTP/1.1 "); i >= 0 {
		code = (got + "\x00\x00\x00")[i+9 : i+12]
	}
	want, again, _ := strings.Cut(verdict, ", ")
	switch {
	case verdict == "broken":
		if err == nil && code != "502" {
			t.Errorf("the client got a whole response: %q", got)
		}
	case err != nil || code != want:
		t.Errorf("the client got %q (%v), want %s", got, err, want)
	case want != "502":
		if *update {
			c.want = got
		}
		if got != c.want {
			t.Errorf("the client got\n%s\nwant\n%s", escape(">", got), escape(">", c.want))
		}
	}
	if strings.Contains(got, "POISON") {
		t.Errorf("the client got bytes that are not its response: %q", got)
	}
	// The next request uses the same connection if that is open. By then the
	// exchange has certainly ended upstream too.
	if !open {
		conn = w.corpusClient(t, address, withTLS)
		defer conn.Close()
	}
	send(conn, nextRequest, 0)
	next, _, err := readReplies(t, conn, false)
	number, _ := strconv.ParseInt(next[max(0, len(next)-8):], 10, 64)
	if err != nil || number == 0 {
		t.Fatalf("the next request was answered %q, %v", next, err)
	}
	if same := number == up.last.Load(); same && again != "used again" || !same && open && again == "used again" {
		t.Errorf("the next request came on the same connection: %v, want %q", same, again)
	}
}

var (
	replyLine  = regexp.MustCompile(`^HTTP/1\.1 ([1-5][0-9][0-9]) [\t -~]*\r\n`)
	replyField = regexp.MustCompile(`^([!#-'*+.0-9A-Z^-z|~-]+): ((?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?)\r\n`)
)

// readReplies reads the interim responses and the final one, and reports
// whether the connection is still open. It fails if the final response is
// incomplete. The returned responses have all data in one chunk, and no Date.
func readReplies(t *testing.T, conn net.Conn, head bool) (shown string, open bool, err error) {
	t.Helper()
	var raw []byte
	buf := make([]byte, 32<<10)
	for {
		n, readErr := conn.Read(buf)
		raw = append(raw, buf[:n]...)
		if errors.Is(readErr, os.ErrDeadlineExceeded) {
			t.Fatalf("after %q: %v", raw, readErr)
		}
		var b bytes.Buffer
		rest, closes, err := plainReplies(string(raw), &b, head, readErr == io.EOF)
		if errors.Is(err, errNotPlain) {
			t.Fatalf("the client got %q: %v", raw, err)
		}
		if err == nil && rest != "" {
			t.Fatalf("after the response the client got %q", rest)
		}
		if err == nil {
			return b.String(), readErr == nil && !closes, nil
		}
		if readErr != nil && err == nil && readErr != io.EOF {
			err = readErr
		}
		if readErr != nil {
			return string(raw), false, errors.Join(err, readErr)
		}
	}
}

// plainReplies reads interim responses and a final one in their plain form. A
// body with neither length nor chunks is complete once the connection has ended. closes
// says that the response ends the connection.
func plainReplies(s string, shown *bytes.Buffer, head, ended bool) (rest string, closes bool, err error) {
	for {
		m := replyLine.FindStringSubmatch(s)
		if m == nil {
			if strings.Contains(s, "\n") {
				return "", false, fmt.Errorf("%w: its first line", errNotPlain)
			}
			return "", false, errNotWhole
		}
		shown.WriteString(m[0])
		s = s[len(m[0]):]
		length, chunked := -1, false
		for !strings.HasPrefix(s, "\r\n") {
			f := replyField.FindStringSubmatch(s)
			if f == nil {
				if strings.Contains(s, "\n") {
					return "", false, fmt.Errorf("%w: the field %q", errNotPlain, s)
				}
				return "", false, errNotWhole
			}
			s = s[len(f[0]):]
			switch strings.ToLower(f[1]) {
			case "content-length":
				if n, err := strconv.Atoi(f[2]); err != nil || length >= 0 || chunked {
					return "", false, fmt.Errorf("%w: its length", errNotPlain)
				} else {
					length = n
				}
			case "transfer-encoding":
				if f[2] != "chunked" || length >= 0 || chunked {
					return "", false, fmt.Errorf("%w: its coding", errNotPlain)
				}
				chunked = true
			case "connection":
				closes = closes || f[2] == "close"
			case "date":
				continue
			}
			shown.WriteString(f[0])
		}
		shown.WriteString("\r\n")
		s = s[2:]
		switch {
		case m[1][0] == '1' && m[1] != "101":
			continue
		case m[1] == "204" || m[1] == "304" || m[1] == "101" || head:
			return s, closes, nil
		case chunked:
			data, trailer, after, err := plainChunks(s)
			if err != nil {
				return "", closes, err
			}
			if data != "" {
				fmt.Fprintf(shown, "%x\r\n%s\r\n", len(data), data)
			}
			shown.WriteString("0\r\n" + trailer + "\r\n")
			return after, closes, nil
		case length >= 0:
			if len(s) < length {
				return "", closes, errNotWhole
			}
			shown.WriteString(s[:length])
			return s[length:], closes, nil
		}
		if shown.WriteString(s); !ended {
			return "", true, errNotWhole
		}
		return "", true, nil
	}
}
