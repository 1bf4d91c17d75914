package http1

import (
	"errors"
	"strings"
	"testing"
)

// arrive passes a Scan its input in pieces, and returns where the head ends.
func arrive(end func(*Scan, []byte, *Limits) (int, error), l Limits, pieces ...string) (n int, err error) {
	var s Scan
	var buf []byte
	for _, p := range pieces {
		buf = append(buf, p...)
		if n, err = end(&s, buf, &l); n > 0 || err != nil {
			break
		}
	}
	if err == nil && (s == Scan{}) != (n > 0) {
		return n, errors.New("the Scan is at the wrong position")
	}
	return n, err
}

var heads = []string{
	wrk, small, nginx,
	"\r\n" + small,
	lines("GET / HTTP/1.1", "Host: a\nb"),
	lines("GET / HTTP/1.1", "Host: a") + "\n",
	lines("GET / HTTP/1.1\n", "Host: a"),
	"\r\n\r\n" + small,
	"\r" + small,
	"\n" + small,
	"\x16\x03\x01" + small,
	lines("GET /" + strings.Repeat("a", 1000) + " HTTP/1.1"),
	lines(strings.Repeat("a", 1000)),
	lines("GET / HTTP/1.1", "X: "+strings.Repeat("a", 1000)),
	lines("HTTP/1.1 200 OK"),
	lines("HTTP/1.1 200 OK\nX"),
	lines("HTP/1.1 200 OK"),
	lines("HTTP/1.1 200 OK", "X: "+strings.Repeat("a", 1000)),
}

func TestTheEndOfAHeadDoesNotDependOnSplits(t *testing.T) {
	for name, end := range map[string]func(*Scan, []byte, *Limits) (int, error){"request": (*Scan).RequestEnd, "response": (*Scan).ResponseEnd} {
		l := Limits{Head: 400, Target: 200}
		for _, head := range heads {
			in := head + "rest\n"
			want, wantErr := arrive(end, l, in)
			same := func(how string, pieces ...string) {
				t.Helper()
				// An *Error of a response is a copy: compare texts.
				n, err := arrive(end, l, pieces...)
				if n != want || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
					t.Errorf("%s %q, %s: %d %v, want %d %v", name, head, how, n, err, want, wantErr)
				}
			}
			for i := range in {
				same("in two", in[:i], in[i:])
			}
			same("byte by byte", strings.Split(in, "")...)
		}
	}
}

// A Scan must not rescan the head each time a byte arrives: 64 KiB would then
// cost two billion steps.
func TestASlowHeadIsScannedOnce(t *testing.T) {
	var s Scan
	l := Limits{Head: 1 << 20}
	buf := []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("a", 1<<16))
	for i := range buf {
		if n, err := s.RequestEnd(buf[:i], &l); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if s.at < i {
			t.Fatalf("after %d bytes, the scan is at %d", i, s.at)
		}
	}
}

func TestAScanContinuesWithTheNextHead(t *testing.T) {
	var s Scan
	in := []byte(wrk + "\r\n" + small + wrk)
	for i, want := range []int{len(wrk), 2 + len(small), len(wrk), 0} {
		n, err := s.RequestEnd(in, &Limits{})
		if n != want || err != nil || s != (Scan{}) {
			t.Fatalf("head %d: %d %v", i, n, err)
		}
		in = in[n:]
	}
}
