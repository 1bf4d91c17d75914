package http1

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// requestSeeds and responseSeeds return every request and every response in the
// tables.
func requestSeeds() (all []string) {
	for _, c := range refusedRequests {
		all = append(all, c.head)
	}
	for _, c := range servedRequests {
		all = append(all, c.head)
	}
	return append(all, heads...)
}

func responseSeeds() (all []string) {
	for _, c := range refusedResponses {
		all = append(all, c.head)
	}
	for _, c := range servedResponses {
		all = append(all, c.head)
	}
	return append(all, heads...)
}

// canWrite removes the fields that only a Framing may set.
func canWrite(fields message.Fields) message.Fields {
	kept := slices.Clone(fields)
	kept.RemoveFunc(func(f message.Field) bool { return message.IsConnectionField(f.Name) })
	return kept
}

// A request that parses can be written, and the output parses as the same
// request with nothing after it.
func FuzzRequest(f *testing.F) {
	for _, in := range requestSeeds() {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r, err := readRequest(in, refusedLimits)
		var e *Error
		if err != nil {
			if err != errUnfinished && (!errors.As(err, &e) || e.Status < 400) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if r.Method == "CONNECT" || r.Authority == "" {
			return // CONNECT and a body until close are never written
		}
		framing := Framing{Body: Sized, Length: r.Length, Close: r.Close}
		if r.Chunked {
			framing = Framing{Body: InChunks, Close: r.Close}
		}
		fields := canWrite(r.Fields)
		out, err := AppendRequest(nil, &message.Request{Method: r.Method, Authority: r.Authority, Target: r.Target, Fields: fields}, framing)
		if err != nil {
			t.Fatalf("%q cannot be written: %v", in, err)
		}
		again, err := readRequest(string(out)+"x", Limits{})
		if err != nil {
			t.Fatalf("%q was written %q: %v", in, out, err)
		}
		if again.Method != r.Method || again.Authority != r.Authority || again.Target != r.Target || again.Length != r.Length ||
			again.Chunked != r.Chunked || again.Close != r.Close || !slices.Equal(canWrite(again.Fields), fields) {
			t.Errorf("%q\nbecame %q\n%+v\n%+v", in, out, r, again)
		}
	})
}

func FuzzResponse(f *testing.F) {
	for _, in := range responseSeeds() {
		f.Add(in, "GET")
		f.Add(in, "HEAD")
	}
	f.Fuzz(func(t *testing.T, in, method string) {
		r, err := readResponse(in, method, refusedLimits)
		var e *Error
		if err != nil {
			if err != errUnfinished && (!errors.As(err, &e) || e.Status != 502) {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		if method == "CONNECT" && r.Switched {
			return
		}
		framing := Framing{Close: r.Close}
		switch {
		case r.Switched:
			framing.Upgrade, _ = r.Fields.Get("Upgrade")
			framing.Close = false
		case r.Chunked:
			framing.Body = InChunks
		case r.UntilClose:
			framing.Body = UntilClose
		case r.Declared >= 0 && r.Status >= 200 && r.Status != 204:
			framing.Body, framing.Length = Sized, r.Declared
		}
		fields := canWrite(r.Fields)
		out, err := AppendResponse(nil, &message.Response{Status: r.Status, Fields: fields}, framing)
		if err != nil {
			t.Fatalf("%q cannot be written: %v", in, err)
		}
		again, err := readResponse(string(out)+"x", method, Limits{})
		if err != nil {
			t.Fatalf("%q was written %q: %v", in, out, err)
		}
		if again.Status != r.Status || again.Length != r.Length || again.Chunked != r.Chunked || again.UntilClose != r.UntilClose ||
			again.Switched != r.Switched || again.Close != r.Close || !slices.Equal(canWrite(again.Fields), fields) {
			t.Errorf("%q\nbecame %q\n%+v\n%+v", in, out, r, again)
		}
	})
}

// A Chunked that gets its input in any two pieces behaves like reference with
// the whole input.
func FuzzChunked(f *testing.F) {
	for _, c := range chunkedBodies {
		f.Add(c.in, 3)
	}
	f.Fuzz(func(t *testing.T, in string, at int) {
		l := Limits{Trailer: 1 << 20, Fields: 1 << 20}
		if at = max(at, 0); len(in) > 1000 {
			return // larger input could exceed a limit
		}
		at = min(at, len(in))
		data, rest, trailer, err := decode(l, in[:at], in[at:])
		want, wantRest, wantTrailer, ok := reference(in)
		if ok != (err == nil) || ok && (rest != wantRest || data != want || !slices.Equal(trailer, wantTrailer)) {
			t.Fatalf("%q at %d: %q, rest %q, trailer %q, %v\nwant %v %q, rest %q, trailer %q", in, at, data, rest, trailer, err, ok, want, wantRest, wantTrailer)
		}
		whole, wholeRest, _, wholeErr := decode(l, in)
		if whole != data || wholeRest != rest || wholeErr != err {
			t.Errorf("%q at %d: %q %v, whole: %q %v", in, at, data, err, whole, wholeErr)
		}
	})
}

const aToken = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"

var (
	sizeLine  = regexp.MustCompile("^([0-9A-Fa-f]{1,16})(?:;" + aToken + "(?:=(?:" + aToken + `|"(?:[\t -!#-\[\]-~\x{80}-\x{ff}]|\\[\t -~\x{80}-\x{ff}])*"))?)*` + "\r\n")
	fieldLine = regexp.MustCompile("^(" + aToken + "):[ \t]*([\t -~\\x{80}-\\x{ff}]*?)[ \t]*\r\n")
	framed    = regexp.MustCompile("(?i)^(content-length|transfer-encoding|connection|keep-alive|proxy-connection|http2-settings|upgrade|te|trailer|host)$")
)

// reference decodes a whole chunked body in the simplest way.
func reference(in string) (data, rest string, trailer message.Fields, ok bool) {
	// Each character of the expressions stands for one byte of the body.
	in = latin1(in)
	for {
		m := sizeLine.FindStringSubmatch(in)
		if m == nil {
			return "", "", nil, false
		}
		size, err := strconv.ParseInt(m[1], 16, 64)
		if err != nil {
			return "", "", nil, false
		}
		r := []rune(in[len(m[0]):])
		if size == 0 {
			in = string(r)
			break
		}
		if int64(len(r)) < size || !strings.HasPrefix(string(r[size:]), "\r\n") {
			return "", "", nil, false
		}
		data += string(r[:size])
		in = string(r[size+2:])
	}
	for !strings.HasPrefix(in, "\r\n") {
		m := fieldLine.FindStringSubmatch(in)
		if m == nil || framed.MatchString(m[1]) {
			return "", "", nil, false
		}
		trailer = append(trailer, message.Field{Name: m[1], Value: fromLatin1(m[2])})
		in = in[len(m[0]):]
	}
	return fromLatin1(data), fromLatin1(in[2:]), trailer, true
}

func latin1(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

func fromLatin1(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

// For any input, a writer's output is one head or nothing.
func FuzzWrite(f *testing.F) {
	f.Add("GET", "/", "a", "X", "y", "x", 200, int64(5))
	for _, c := range fieldsThatCannotBeWritten {
		f.Add("GET", "/", "a", c.field.Name, c.field.Value, "", 200, int64(0))
	}
	f.Add("GET\r\n", "/ ", "a\n", "X\r\n\r\n", "y\r\n\r\n", "\x00", 1000, int64(-1))
	f.Fuzz(func(t *testing.T, method, target, authority, name, value, upgrade string, status int, length int64) {
		fields := message.Fields{{Name: name, Value: value}}
		framing := Framing{Body: Sized, Length: length, Upgrade: upgrade}
		out, err := AppendRequest(nil, &message.Request{Method: method, Target: target, Authority: authority, Fields: fields}, framing)
		if err == nil {
			l := Limits{Head: len(out) + 1, Target: len(target) + 1}
			if r, err := readRequest(string(out)+"x", l); err != nil && err != errLengthSize || err == nil && r.Length != length {
				t.Errorf("%q: %v %+v", out, err, r)
			}
		}
		out, err = AppendResponse(nil, &message.Response{Status: status, Fields: fields}, framing)
		if err == nil {
			if _, err := readResponse(string(out)+"x", "GET", Limits{Head: len(out) + 1}); err != nil && err.(*Error).Reason != errLengthSize.Reason {
				t.Errorf("%q: %v", out, err)
			}
		}
		out, err = AppendLastChunk(nil, fields)
		if err == nil {
			var c Chunked
			c.Reset(&Limits{Trailer: len(out)})
			if _, n, err := c.Next(append(out, 'x')); err != io.EOF || n != len(out) {
				t.Errorf("%q: %d %v", out, n, err)
			}
		}
	})
}
