package l7

import (
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A recorder is an upstream that records every byte it receives. It answers
// only requests in their one plain form, never repairs a request, and leaves
// anything else unanswered.
type recorder struct {
	http2    bool // serveHTTP2 serves HTTP/2 connections
	mu       sync.Mutex
	requests []string // in the order of their completion, as plainRequest shows them
	conns    []*recorded
}

// A recorded is a connection to a recorder.
type recorded struct {
	raw   []byte // bytes of an incomplete request
	ended bool
}

// serve serves one connection.
func (r *recorder) serve(c net.Conn) {
	k := new(recorded)
	r.mu.Lock()
	r.conns = append(r.conns, k)
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		k.ended = true
		r.mu.Unlock()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		if n == 0 && err != nil {
			return
		}
		if _, err := io.WriteString(c, r.keep(k, buf[:n])); err != nil {
			return
		}
	}
}

// keep records the bytes that arrived, and returns the answers to whole
// requests.
func (r *recorder) keep(k *recorded, b []byte) (answers string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.raw = append(k.raw, b...)
	for {
		var shown strings.Builder
		n, method, err := plainRequest(string(k.raw), &shown)
		if err != nil {
			return answers
		}
		r.requests = append(r.requests, shown.String())
		k.raw = k.raw[n:]
		if method == "HEAD" {
			answers += "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
		} else {
			answers += "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		}
	}
}

// take returns all requests that have arrived since the last take, and all
// other bytes that have arrived on any connection.
func (r *recorder) take(t testing.TB) (requests, halves []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.conns {
		if len(k.raw) > 0 {
			halves = append(halves, string(k.raw))
		}
		if _, _, err := plainRequest(string(k.raw), nil); errors.Is(err, errNotPlain) {
			t.Errorf("the upstream got %q: %v", k.raw, err)
		}
	}
	requests, r.requests = r.requests, nil
	return requests, halves
}

// unfinished returns how many open connections have sent an incomplete request.
func (r *recorder) unfinished() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.conns {
		if !k.ended && len(k.raw) > 0 {
			n++
		}
	}
	return n
}

// ownName is the Host of requests that arrived without one.
const ownName = "upstream.example"

var (
	errNotWhole = errors.New("not whole")
	errNotPlain = errors.New("not a request in its plain form")

	plainLine  = regexp.MustCompile(`^([!#-'*+.0-9A-Z^-z|~-]+) (/[!"$-~]*|\*) HTTP/1\.1\r\n`)
	plainField = regexp.MustCompile(`^([!#-'*+.0-9A-Z^-z|~-]+): ((?:[^\x00-\x20\x7f](?:[^\x00-\x08\x0a-\x1f\x7f]*[^\x00-\x20\x7f])?)?)\r\n`)
	plainSize  = regexp.MustCompile(`^([0-9a-f]{1,16})\r\n`)
)

// plainRequest returns the length of the request at the beginning of s. It
// writes the request to shown, with one chunk and without the fields that the
// gateway adds. It checks that each of those fields occurs once.
func plainRequest(s string, shown *strings.Builder) (n int, method string, err error) {
	if shown == nil {
		shown = new(strings.Builder)
	}
	head, body, whole := strings.Cut(s, "\r\n\r\n")
	if !whole {
		return 0, "", errNotWhole
	}
	head += "\r\n"
	m := plainLine.FindStringSubmatch(head)
	if m == nil {
		return 0, "", fmt.Errorf("%w: its first line", errNotPlain)
	}
	shown.WriteString(m[0])
	counts := map[string]int{}
	length, chunked := 0, false
	for rest := head[len(m[0]):]; rest != ""; {
		f := plainField.FindStringSubmatch(rest)
		if f == nil {
			return 0, "", fmt.Errorf("%w: the field %q", errNotPlain, rest)
		}
		rest = rest[len(f[0]):]
		name := strings.ToLower(f[1])
		counts[name]++
		switch name {
		case "content-length":
			if length, err = strconv.Atoi(f[2]); err != nil || strconv.Itoa(length) != f[2] {
				return 0, "", fmt.Errorf("%w: its length %q", errNotPlain, f[2])
			}
		case "transfer-encoding":
			if chunked = true; f[2] != "chunked" {
				return 0, "", fmt.Errorf("%w: its coding %q", errNotPlain, f[2])
			}
		case "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto":
			continue
		}
		shown.WriteString(f[0])
	}
	for _, name := range []string{"host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"} {
		want := 1
		if name == "x-forwarded-host" && strings.Contains(head, "\r\nHost: "+ownName+"\r\n") {
			want = 0 // the client sent no Host
		}
		if counts[name] != want {
			return 0, "", fmt.Errorf("%w: it has %s %d times", errNotPlain, name, counts[name])
		}
	}
	if counts["content-length"]+counts["transfer-encoding"] > 1 {
		return 0, "", fmt.Errorf("%w: its framing", errNotPlain)
	}
	shown.WriteString("\r\n")
	n = len(head) + 2
	if !chunked {
		if len(body) < length {
			return 0, "", errNotWhole
		}
		shown.WriteString(body[:length])
		return n + length, m[1], nil
	}
	body, trailer, after, err := plainChunks(body)
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		fmt.Fprintf(shown, "%x\r\n%s\r\n", len(body), body)
	}
	shown.WriteString("0\r\n" + trailer + "\r\n")
	return len(s) - len(after), m[1], nil
}

// plainChunks returns the data of a chunked body, its trailer and the rest of
// s.
func plainChunks(s string) (data, trailer, after string, err error) {
	for {
		size, rest, whole := strings.Cut(s, "\r\n")
		if !whole {
			return "", "", "", errNotWhole
		}
		m := plainSize.FindStringSubmatch(size + "\r\n")
		if m == nil {
			return "", "", "", fmt.Errorf("%w: the chunk size %q", errNotPlain, size)
		}
		n, err := strconv.ParseInt(m[1], 16, 64)
		if err != nil {
			return "", "", "", fmt.Errorf("%w: the chunk size %q", errNotPlain, size)
		}
		if s = rest; n == 0 {
			break
		}
		if int64(len(s)) < n+2 {
			return "", "", "", errNotWhole
		}
		if data += s[:n]; s[n:n+2] != "\r\n" {
			return "", "", "", fmt.Errorf("%w: the end of a chunk", errNotPlain)
		}
		s = s[n+2:]
	}
	for !strings.HasPrefix(s, "\r\n") {
		line, rest, whole := strings.Cut(s, "\r\n")
		if !whole {
			return "", "", "", errNotWhole
		}
		if !plainField.MatchString(line + "\r\n") {
			return "", "", "", fmt.Errorf("%w: the trailer %q", errNotPlain, line)
		}
		trailer += line + "\r\n"
		s = rest
	}
	return data, trailer, s[2:], nil
}
