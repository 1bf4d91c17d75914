package http1

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// readRequest parses the head at the start of input, as a server does that
// receives it in one piece.
func readRequest(input string, l Limits) (*Request, error) {
	var s Scan
	n, err := s.RequestEnd([]byte(input), &l)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errUnfinished
	}
	r := new(Request)
	return r, ParseRequest(input[:n], &l, r)
}

var errUnfinished = errors.New("more is needed")

func lines(l ...string) string { return strings.Join(l, "\r\n") + "\r\n\r\n" }

// refusedLimits are the limits for refusedRequests.
var refusedLimits = Limits{Head: 512, Target: 100, Fields: 8, Body: 1000000}

func long(n int) string { return strings.Repeat("a", n) }

var refusedRequests = []struct {
	name, head string
	want       error
}{
	// Lines: RFC 9112, section 2.2.
	{"a request line that ends in a bare line feed", "GET / HTTP/1.1\nHost: a\r\n\r\n", errBareLF},
	{"a field that ends in a bare line feed", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", errBareLF},
	{"a head that ends in a bare line feed", "GET / HTTP/1.1\r\nHost: a\r\n\n", errBareLF},
	{"bare line feeds everywhere", "GET / HTTP/1.1\nHost: a\n\n", errBareLF},
	{"a bare line feed before the request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errBareLF},
	{"a bare carriage return before the request", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", errBareCR},
	{"a bare carriage return in the method", "GE\rT / HTTP/1.1\r\nHost: a\r\n\r\n", errBareCR},
	{"a bare carriage return in the target", "GET /\ra HTTP/1.1\r\nHost: a\r\n\r\n", errBareCR},
	{"a bare carriage return in the version", "GET / HTTP/1.1\rX\r\nHost: a\r\n\r\n", errBareCR},
	{"a doubled carriage return after the version", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", errBareCR},
	{"a bare carriage return in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\rY: z\r\n\r\n", errBareCR},
	{"a bare carriage return in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: y\rContent-Length: 5\r\n\r\n", errBareCR},
	{"a doubled carriage return after a value", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", errBareCR},
	{"a doubled carriage return in the empty line", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n\r\n", errBareCR},
	{"two empty lines before the request", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", errEmptyLines},
	{"a blank before the request", " GET / HTTP/1.1\r\nHost: a\r\n\r\n", errRequestLine},
	{"a TLS handshake", "\x16\x03\x01\x02\x00", errNotHTTP},
	{"a TLS handshake after an empty line", "\r\n\x16", errNotHTTP},
	{"bytes that are not ASCII", "\xef\xbb\xbfGET / HTTP/1.1\r\nHost: a\r\n\r\n", errNotHTTP},
	{"a NUL", "\x00", errNotHTTP},

	// Request lines: RFC 9112, section 3.
	{"a method alone", lines("GET", "Host: a"), errMethod},
	{"a method and a blank", lines("GET ", "Host: a"), errRequestLine},
	{"CONNECT without a target", lines("CONNECT  HTTP/1.1", "Host: a"), errRequestLine},
	{"a simple request of HTTP/0.9", lines("GET /", "Host: a"), errRequestLine},
	{"two blanks before the target", lines("GET  / HTTP/1.1", "Host: a"), errRequestLine},
	{"two blanks before the version", lines("GET /  HTTP/1.1", "Host: a"), errVersionBytes},
	{"a blank after the version", lines("GET / HTTP/1.1 ", "Host: a"), errVersionBytes},
	{"a blank in the target", lines("GET /a b HTTP/1.1", "Host: a"), errVersionBytes},
	{"a tab before the target", lines("GET\t/ HTTP/1.1", "Host: a"), errMethod},
	{"a tab before the version", lines("GET /\tHTTP/1.1", "Host: a"), errRequestLine},
	{"a form feed before the target", lines("GET\f/ HTTP/1.1", "Host: a"), errMethod},
	{"a method with a colon", lines("GET: / HTTP/1.1", "Host: a"), errMethod},
	{"a method with a parenthesis", lines("GET( / HTTP/1.1", "Host: a"), errMethod},
	{"a method with a NUL", lines("G\x00T / HTTP/1.1", "Host: a"), errMethod},
	{"a method that is not ASCII", lines("G\u00cbT / HTTP/1.1", "Host: a"), errMethod},
	{"a method of 33 bytes", lines(long(33)+" / HTTP/1.1", "Host: a"), errMethodSize},
	{"a method without an end", long(200), errMethodSize},
	{"a target of 101 bytes", lines("GET /"+long(100)+" HTTP/1.1", "Host: a"), errTargetSize},
	{"a target without an end", "GET /" + long(200), errTargetSize},
	{"a first field without an end", "GET / HTTP/1.1\r\n" + long(600), errHeadSize},
	{"a head of 513 bytes", lines("GET / HTTP/1.1", "Host: a", "X: "+long(513-len("GET / HTTP/1.1rnHost: arnX: rnrn"))), errHeadSize},
	{"a head without an end", "GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 100), errHeadSize},
	{"nine fields", lines("GET / HTTP/1.1", "Host: a", "1:", "2:", "3:", "4:", "5:", "6:", "7:", "8:"), errFieldCount},

	// Versions: RFC 9112, section 2.3.
	{"HTTP/0.9", lines("GET / HTTP/0.9", "Host: a"), errVersion},
	{"HTTP/1.2", lines("GET / HTTP/1.2", "Host: a"), errVersion},
	{"HTTP/1.9", lines("GET / HTTP/1.9", "Host: a"), errVersion},
	{"HTTP/2.0", lines("GET / HTTP/2.0", "Host: a"), errVersion},
	{"HTTP/3.0", lines("GET / HTTP/3.0", "Host: a"), errVersion},
	{"HTTP/2", lines("GET / HTTP/2", "Host: a"), errVersionBytes},
	{"HTTP/1.10", lines("GET / HTTP/1.10", "Host: a"), errVersionBytes},
	{"HTTP/1.", lines("GET / HTTP/1.", "Host: a"), errVersionBytes},
	{"HTTP/1,1", lines("GET / HTTP/1,1", "Host: a"), errVersionBytes},
	{"HTTP/01.1", lines("GET / HTTP/01.1", "Host: a"), errVersionBytes},
	{"HTTP/+1.1", lines("GET / HTTP/+1.1", "Host: a"), errVersionBytes},
	{"http/1.1", lines("GET / http/1.1", "Host: a"), errVersionBytes},
	{"HTTP", lines("GET / HTTP", "Host: a"), errVersionBytes},
	{"another protocol", lines("GET / ICAP/1.0", "Host: a"), errVersionBytes},
	{"a NUL in the version", lines("GET / HTTP/1.1\x00", "Host: a"), errVersionBytes},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ErrPreface},
	{"the preface of HTTP/2 with a field", lines("PRI * HTTP/2.0", "Host: a"), errVersion},
	{"the preface of HTTP/2 with another target", "PRI / HTTP/2.0\r\n\r\n", errVersion},
	{"the preface of HTTP/2 in HTTP/1.1", lines("PRI * HTTP/1.1", "Host: a"), errAsterisk},

	// Targets: RFC 9112, section 3.2.
	{"a relative target", lines("GET a HTTP/1.1", "Host: a"), errTarget},
	{"a target that is a query", lines("GET ?a HTTP/1.1", "Host: a"), errTarget},
	{"a host as the target", lines("GET a:80 HTTP/1.1", "Host: a:80"), errTarget},
	{"an asterisk for GET", lines("GET * HTTP/1.1", "Host: a"), errAsterisk},
	{"an asterisk followed by a path", lines("OPTIONS *?a HTTP/1.1", "Host: a"), errTarget},
	{"an asterisk instead of a path", lines("OPTIONS */ HTTP/1.1", "Host: a"), errTarget},
	{"a fragment", lines("GET /a#b HTTP/1.1", "Host: a"), errFragment},
	{"a fragment after a query", lines("GET /a?b#c HTTP/1.1", "Host: a"), errFragment},
	{"a fragment of an absolute target", lines("GET http://a/#b HTTP/1.1", "Host: a"), errFragment},
	{"a NUL in the target", lines("GET /\x00 HTTP/1.1", "Host: a"), errTargetBytes},
	{"a DEL in the target", lines("GET /\x7f HTTP/1.1", "Host: a"), errTargetBytes},
	{"an escape sequence in the target", lines("GET /\x1b[2J HTTP/1.1", "Host: a"), errTargetBytes},
	{"a target that is not ASCII", lines("GET /\u00e9 HTTP/1.1", "Host: a"), errTargetBytes},
	{"a query that is not ASCII", lines("GET /?\xff HTTP/1.1", "Host: a"), errTargetBytes},
	{"an absolute target that is not ASCII", lines("GET http://a/\u00e9 HTTP/1.1", "Host: a"), errTargetBytes},
	{"an absolute target of another scheme", lines("GET ftp://a/ HTTP/1.1", "Host: a"), errTarget},
	{"an absolute target without an authority", lines("GET http:///a HTTP/1.1", "Host: a"), errTarget},
	{"an absolute target with one slash", lines("GET http:/a HTTP/1.1", "Host: a"), errTarget},
	{"an absolute target with a user", lines("GET http://u@a/ HTTP/1.1", "Host: a"), errTarget},
	{"an absolute target with a user and a password", lines("GET http://u:p@a/ HTTP/1.1", "Host: a"), errTarget},
	{"an absolute target with a backslash before its path", lines(`GET http://a\b/ HTTP/1.1`, "Host: a"), errTarget},
	{"an absolute target of another host", lines("GET http://b/ HTTP/1.1", "Host: a"), errHostDiffer},
	{"an absolute target of another port", lines("GET http://a:81/ HTTP/1.1", "Host: a"), errHostDiffer},
	{"an absolute target with a port that Host lacks", lines("GET http://a:80/ HTTP/1.1", "Host: a"), errHostDiffer},
	{"an absolute target instead of Host", lines("GET http://a/ HTTP/1.1", "X: y"), errNoHost},
	{"a path for CONNECT", lines("CONNECT / HTTP/1.1", "Host: a"), errConnect},
	{"an absolute target for CONNECT", lines("CONNECT http://a:80/ HTTP/1.1", "Host: a:80"), errConnect},
	{"CONNECT without a port", lines("CONNECT a HTTP/1.1", "Host: a"), errConnect},
	{"CONNECT with an empty port", lines("CONNECT a: HTTP/1.1", "Host: a:"), errConnect},
	{"CONNECT with a port that is not a number", lines("CONNECT a:b HTTP/1.1", "Host: a"), errConnect},
	{"CONNECT with a user", lines("CONNECT u@a:80 HTTP/1.1", "Host: a:80"), errConnect},
	{"CONNECT to two hosts", lines("CONNECT a:80,b:80 HTTP/1.1", "Host: a:80"), errConnect},
	{"CONNECT with an asterisk", lines("CONNECT * HTTP/1.1", "Host: a"), errConnect},
	{"CONNECT to another host", lines("CONNECT b:80 HTTP/1.1", "Host: a:80"), errHostDiffer},

	// Host: RFC 9112, section 3.2.
	{"no Host", lines("GET / HTTP/1.1", "X: y"), errNoHost},
	{"no field at all", lines("GET / HTTP/1.1"), errNoHost},
	{"two Hosts", lines("GET / HTTP/1.1", "Host: a", "Host: b"), errHosts},
	{"two Hosts that are the same", lines("GET / HTTP/1.1", "Host: a", "HOST: a"), errHosts},
	{"two Hosts in HTTP/1.0", lines("GET / HTTP/1.0", "Host: a", "Host: a"), errHosts},
	{"two Hosts, the first of them empty", lines("GET / HTTP/1.1", "Host:", "Host: a"), errHosts},
	{"an empty Host", lines("GET / HTTP/1.1", "Host:"), errHost},
	{"a blank Host", lines("GET / HTTP/1.1", "Host: \t "), errHost},
	{"an empty Host in HTTP/1.0", lines("GET / HTTP/1.0", "Host: "), errHost},
	{"an empty Host beside an absolute target", lines("GET http://a/ HTTP/1.1", "Host:"), errHost},
	{"a Host with a user", lines("GET / HTTP/1.1", "Host: u@a"), errHost},
	{"a Host with a path", lines("GET / HTTP/1.1", "Host: a/b"), errHost},
	{"a Host with a query", lines("GET / HTTP/1.1", "Host: a?b"), errHost},
	{"a Host with a fragment", lines("GET / HTTP/1.1", "Host: a#b"), errHost},
	{"a Host with a blank", lines("GET / HTTP/1.1", "Host: a b"), errHost},
	{"a Host with a backslash", lines("GET / HTTP/1.1", `Host: a\b`), errHost},
	{"a Host that is a list", lines("GET / HTTP/1.1", "Host: a,b"), errHost},
	{"a Host that is not ASCII", lines("GET / HTTP/1.1", "Host: \u00e9"), errHost},
	{"a Host that consists of a port", lines("GET / HTTP/1.1", "Host: :80"), errHost},
	{"a Host with a malformed port", lines("GET / HTTP/1.1", "Host: a:b"), errHost},
	{"a Host with two ports", lines("GET / HTTP/1.1", "Host: a:80:80"), errHost},
	{"a Host with a port of six digits", lines("GET / HTTP/1.1", "Host: a:000080"), errHost},
	{"a Host whose bracket is not closed", lines("GET / HTTP/1.1", "Host: [::1"), errHost},
	{"a Host with text after its bracket", lines("GET / HTTP/1.1", "Host: [::1]a"), errHost},
	{"a Host with a zone", lines("GET / HTTP/1.1", "Host: [fe80::1%25eth0]"), errHost},

	// Fields: RFC 9112, section 5.
	{"a folded field", lines("GET / HTTP/1.1", "Host: a", "X: y", " z"), errFold},
	{"a field folded with a tab", lines("GET / HTTP/1.1", "Host: a", "X: y", "\tContent-Length: 5"), errFold},
	{"a blank before the first field", lines("GET / HTTP/1.1", " Host: a", "Host: b"), errFold},
	{"a line of one blank", lines("GET / HTTP/1.1", "Host: a", " "), errFold},
	{"a blank before a colon", lines("GET / HTTP/1.1", "Host: a", "Content-Length : 5"), errColonBlank},
	{"a tab before a colon", lines("GET / HTTP/1.1", "Host: a", "Transfer-Encoding\t: chunked"), errColonBlank},
	{"a line without a colon", lines("GET / HTTP/1.1", "Host: a", "X"), errNoColon},
	{"a second request line", lines("GET / HTTP/1.1", "GET /b HTTP/1.1", "Host: a"), errColonBlank},
	{"a field without a name", lines("GET / HTTP/1.1", "Host: a", ": y"), errNoName},
	{"a name that is not ASCII", lines("GET / HTTP/1.1", "Host: a", "Content\u2010Length: 5"), errName},
	{"a name with a parenthesis", lines("GET / HTTP/1.1", "Host: a", "X(: y"), errName},
	{"a name with a quote", lines("GET / HTTP/1.1", "Host: a", `"X": y`), errName},
	{"a name with a slash", lines("GET / HTTP/1.1", "Host: a", "X/Y: y"), errName},
	{"a name with a semicolon", lines("GET / HTTP/1.1", "Host: a", "X;Y: y"), errName},
	{"a name with a NUL", lines("GET / HTTP/1.1", "Host: a", "X\x00: y"), errName},
	{"a name with a vertical tab", lines("GET / HTTP/1.1", "Host: a", "Content-Length\v: 5"), errName},
	{"a name that begins with a DEL", lines("GET / HTTP/1.1", "Host: a", "\x7fX: y"), errName},
	{"a NUL in a value", lines("GET / HTTP/1.1", "Host: a", "X: y\x00z"), errControl},
	{"a vertical tab in a value", lines("GET / HTTP/1.1", "Host: a", "X: \vy"), errControl},
	{"an escape sequence in a value", lines("GET / HTTP/1.1", "Host: a", "X: \x1b[0m"), errControl},
	{"a DEL in a value", lines("GET / HTTP/1.1", "Host: a", "X: \x7f"), errControl},
	{"a backspace in a value", lines("GET / HTTP/1.1", "Host: a", "X: 12345678\b"), errControl},

	// Content-Length: RFC 9112, section 6.3.
	{"two lengths", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Content-Length: 6"), errLengths},
	{"two lengths that are the same", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "content-length: 5"), errLengths},
	{"two lengths of 0", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 0", "Content-Length: 0"), errLengths},
	{"a list of lengths", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5, 5"), errLength},
	{"a list with one length", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5,"), errLength},
	{"an empty length", lines("POST / HTTP/1.1", "Host: a", "Content-Length:"), errLength},
	{"a length with a plus", lines("POST / HTTP/1.1", "Host: a", "Content-Length: +5"), errLength},
	{"a length with a minus", lines("POST / HTTP/1.1", "Host: a", "Content-Length: -5"), errLength},
	{"a length of -0", lines("POST / HTTP/1.1", "Host: a", "Content-Length: -0"), errLength},
	{"a length with leading zeros", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 005"), errLength},
	{"a length of two zeros", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 00"), errLength},
	{"a length in hexadecimal", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 0x5"), errLength},
	{"a length with a fraction", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5.0"), errLength},
	{"a length with an exponent", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5e1"), errLength},
	{"a length with an underscore", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 1_0"), errLength},
	{"a length with a blank in it", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 1 0"), errLength},
	{"a length in quotes", lines("POST / HTTP/1.1", "Host: a", `Content-Length: "5"`), errLength},
	{"a length in other digits", lines("POST / HTTP/1.1", "Host: a", "Content-Length: \u0665"), errLength},
	{"a length that is a word", lines("POST / HTTP/1.1", "Host: a", "Content-Length: chunked"), errLength},
	{"a length of 63 bits", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 9223372036854775807"), errLengthSize},
	{"a length over 63 bits", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 9223372036854775808"), errLengthSize},
	{"a length over 64 bits", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 18446744073709551621"), errLengthSize},
	{"a length of a hundred digits", lines("POST / HTTP/1.1", "Host: a", "Content-Length: "+strings.Repeat("9", 100)), errLengthSize},
	{"a long length that is not a number", lines("POST / HTTP/1.1", "Host: a", "Content-Length: "+strings.Repeat("9", 100)+"x"), errLength},
	{"a length over the limit", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 1000001"), errBodySize},

	// Transfer-Encoding: RFC 9112, sections 6.1 and 6.3.
	{"a length and chunks", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Transfer-Encoding: chunked"), errLengthCoding},
	{"chunks and a length", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 5"), errLengthCoding},
	{"chunks and a length of 0", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Content-Length: 0"), errLengthCoding},
	{"an empty coding and a length", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding:", "Content-Length: 5"), errLengthCoding},
	{"another coding and a length", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip", "Content-Length: 5"), errLengthCoding},
	{"chunks in HTTP/1.0", lines("POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked"), errCodingVersion},
	{"chunks and keep-alive in HTTP/1.0", lines("POST / HTTP/1.0", "Host: a", "Transfer-Encoding: chunked", "Connection: keep-alive"), errCodingVersion},
	{"an empty coding", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding:"), errCoding},
	{"identity", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: identity"), errCoding},
	{"gzip", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip"), errCoding},
	{"an unknown coding", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: xchunked"), errCoding},
	{"chunked twice", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, chunked"), errCoding},
	{"chunked in two fields", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), errCoding},
	{"another coding after chunked", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked, gzip"), errCoding},
	{"another coding after chunked in another field", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), errCoding},
	{"an empty element after chunked", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked,"), errCoding},
	{"an empty element after chunked in another field", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding:"), errCoding},
	{"an empty element before chunked", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: ,chunked"), errCoding},
	{"an empty element before chunked in another field", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding:", "Transfer-Encoding: chunked"), errCoding},
	{"chunked with a parameter", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked;a=b"), errCoding},
	{"chunked in quotes", lines("POST / HTTP/1.1", "Host: a", `Transfer-Encoding: "chunked"`), errCoding},
	{"chunked with a letter that is not ASCII", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chun\u212Aed"), errCoding},
	{"two codings without a comma", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip chunked"), errCoding},
	{"chunked after a vertical tab", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: \vchunked"), errControl},
	{"another coding before chunked", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip, chunked"), errCodingUnknown},
	{"identity before chunked", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: identity, chunked"), errCodingUnknown},
	{"another coding before chunked in another field", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), errCodingUnknown},
	{"a parameter before chunked", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: a;b=c, chunked"), errCodingUnknown},

	// Expectations and connection options.
	{"another expectation", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 200-ok"), errExpect},
	{"another expectation beside 100-continue", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue, x"), errExpect},
	{"another expectation in another field", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue", "Expect: y"), errExpect},
	{"an expectation with a parameter", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue;q=1"), errExpect},
	{"a connection option that is not a token", lines("GET / HTTP/1.1", "Host: a", "Connection: clo se"), errConnection},
	{"too many connection options", lines("GET / HTTP/1.1", "Host: a", "Connection: a"+strings.Repeat(", b", 31), "Connection: c"), errOptions},
	{"a connection option in quotes", lines("GET / HTTP/1.1", "Host: a", `Connection: "close"`), errConnection},
}

func TestRejectedRequests(t *testing.T) {
	for _, c := range refusedRequests {
		t.Run(c.name, func(t *testing.T) {
			r, err := readRequest(c.head, refusedLimits)
			if err != c.want {
				t.Errorf("got %v, want %v\n%+v", err, c.want, r)
			}
		})
	}
}

// served returns the minimal request, changed by f.
func served(f func(*Request)) Request {
	r := Request{Request: message.Request{Method: "GET", Authority: "a", Target: "/", Major: 1, Minor: 1}}
	f(&r)
	return r
}

var servedRequests = []struct {
	name, head string
	want       Request
}{
	{"a minimal request", lines("GET / HTTP/1.1", "Host: a"), served(func(r *Request) {})},
	{"an empty line before the request", "\r\n" + lines("GET / HTTP/1.1", "Host: a"), served(func(r *Request) {})},
	{"HTTP/1.0", lines("GET / HTTP/1.0", "Host: a"), served(func(r *Request) { r.Minor, r.Close = 0, true })},
	{"HTTP/1.0 without Host", lines("GET / HTTP/1.0"), served(func(r *Request) { r.Minor, r.Close, r.Authority = 0, true, "" })},
	{"HTTP/1.0 with keep-alive", lines("GET / HTTP/1.0", "Host: a", "Connection: Keep-Alive"),
		served(func(r *Request) { r.Minor, r.Fields = 0, message.Fields{{Name: "Connection", Value: "Keep-Alive"}} })},
	{"close", lines("GET / HTTP/1.1", "Host: a", "Connection: keep-alive, CLOSE"),
		served(func(r *Request) {
			r.Close, r.Fields = true, message.Fields{{Name: "Connection", Value: "keep-alive, CLOSE"}}
		})},
	{"any token as the method", lines("M-SEARCH! / HTTP/1.1", "Host: a"), served(func(r *Request) { r.Method = "M-SEARCH!" })},
	{"a method in lower case is another method", lines("get / HTTP/1.1", "Host: a"), served(func(r *Request) { r.Method = "get" })},
	{"fields in their order, with their case, without blanks around", lines("GET / HTTP/1.1", "hOST: a", "b:c", "B: \t d e\t ", "a:"),
		served(func(r *Request) {
			r.Fields = message.Fields{{Name: "b", Value: "c"}, {Name: "B", Value: "d e"}, {Name: "a", Value: ""}}
		})},
	{"values that are not ASCII", lines("GET / HTTP/1.1", "Host: a", "X: \u00e9\xff\t\""),
		served(func(r *Request) { r.Fields = message.Fields{{Name: "X", Value: "\u00e9\xff\t\""}} })},
	{"characters that browsers leave unescaped", lines(`GET /a[1]{|}\^"<>?b[]=c|d HTTP/1.1`, "Host: a"), served(func(r *Request) { r.Target = `/a[1]{|}\^"<>?b[]=c|d` })},
	{"a broken escape, which is for package route", lines("GET /%zz HTTP/1.1", "Host: a"), served(func(r *Request) { r.Target = "/%zz" })},
	{"a malformed host in an absolute target, which package route rejects", lines("GET http://a%00/ HTTP/1.1", "Host: a%00"), served(func(r *Request) { r.Scheme, r.Authority = "http", "a%00" })},
	{"an announcement of an impossible trailer", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked", "Trailer: Content-Length"),
		served(func(r *Request) {
			r.Method, r.Length, r.Chunked = "POST", -1, true
			r.Fields = message.Fields{{Name: "Transfer-Encoding", Value: "chunked"}, {Name: "Trailer", Value: "Content-Length"}}
		})},
	{"Pragma: no-cache", lines("GET / HTTP/1.1", "Host: a", "Pragma: no-cache"),
		served(func(r *Request) { r.Fields = field("Pragma", "no-cache") })},
	{"two slashes", lines("GET //a HTTP/1.1", "Host: a"), served(func(r *Request) { r.Target = "//a" })},
	{"a host with a port", lines("GET / HTTP/1.1", "Host: A.b:8080"), served(func(r *Request) { r.Authority = "A.b:8080" })},
	{"an address of IPv6", lines("GET / HTTP/1.1", "Host: [::1]:80"), served(func(r *Request) { r.Authority = "[::1]:80" })},
	{"an absolute target", lines("GET http://A/b?c HTTP/1.1", "Host: a"), served(func(r *Request) { r.Scheme, r.Authority, r.Target = "http", "A", "/b?c" })},
	{"an absolute target with https", lines("GET HTTPS://a:1 HTTP/1.1", "Host: a:1"),
		served(func(r *Request) { r.Scheme, r.Authority, r.Target = "https", "a:1", "/" })},
	{"an absolute target with a query only", lines("GET http://a?b HTTP/1.1", "Host: a"), served(func(r *Request) { r.Scheme, r.Target = "http", "/?b" })},
	{"an absolute target for OPTIONS", lines("OPTIONS http://a HTTP/1.1", "Host: a"), served(func(r *Request) { r.Method, r.Scheme, r.Target = "OPTIONS", "http", "*" })},
	{"an absolute target instead of Host in HTTP/1.0", lines("GET http://a/ HTTP/1.0"), served(func(r *Request) { r.Scheme, r.Minor, r.Close = "http", 0, true })},
	{"an asterisk", lines("OPTIONS * HTTP/1.1", "Host: a"), served(func(r *Request) { r.Method, r.Target = "OPTIONS", "*" })},
	{"a path for OPTIONS", lines("OPTIONS /a HTTP/1.1", "Host: a"), served(func(r *Request) { r.Method, r.Target = "OPTIONS", "/a" })},
	{"CONNECT", lines("CONNECT a:443 HTTP/1.1", "Host: a:443"), served(func(r *Request) { r.Method, r.Authority, r.Target = "CONNECT", "a:443", "" })},
	{"a length", lines("POST / HTTP/1.1", "Host: a", "Content-Length:\t5 "), served(func(r *Request) {
		r.Method, r.Length, r.Fields = "POST", 5, message.Fields{{Name: "Content-Length", Value: "5"}}
	})},
	{"a length of 0", lines("POST / HTTP/1.1", "Host: a", "Content-Length: 0"), served(func(r *Request) {
		r.Method, r.Fields = "POST", message.Fields{{Name: "Content-Length", Value: "0"}}
	})},
	{"a length at the limit of what can be counted", lines("GET / HTTP/1.1", "Host: a", "Content-Length: 9223372036854775806"), served(func(r *Request) {
		r.Length, r.Fields = 1<<63-2, message.Fields{{Name: "Content-Length", Value: "9223372036854775806"}}
	})},
	{"chunks", lines("POST / HTTP/1.1", "Host: a", "Transfer-Encoding: Chunked"), served(func(r *Request) {
		r.Method, r.Length, r.Chunked, r.Fields = "POST", -1, true, message.Fields{{Name: "Transfer-Encoding", Value: "Chunked"}}
	})},
	{"fields with names similar to framing fields", lines("POST / HTTP/1.1", "Host: a", "Content_Length: 5", "Transfer_Encoding: chunked"), served(func(r *Request) {
		r.Method, r.Fields = "POST", message.Fields{{Name: "Content_Length", Value: "5"}, {Name: "Transfer_Encoding", Value: "chunked"}}
	})},
	{"an expectation", lines("POST / HTTP/1.1", "Host: a", "Expect: 100-Continue", "Content-Length: 1"), served(func(r *Request) {
		r.Method, r.Length, r.Continue = "POST", 1, true
		r.Fields = message.Fields{{Name: "Expect", Value: "100-Continue"}, {Name: "Content-Length", Value: "1"}}
	})},
	{"an expectation without a body", lines("GET / HTTP/1.1", "Host: a", "Expect: 100-continue"), served(func(r *Request) {
		r.Fields = message.Fields{{Name: "Expect", Value: "100-continue"}}
	})},
	{"an expectation in HTTP/1.0", lines("POST / HTTP/1.0", "Host: a", "Expect: 100-continue", "Content-Length: 1"), served(func(r *Request) {
		r.Method, r.Length, r.Minor, r.Close = "POST", 1, 0, true
		r.Fields = message.Fields{{Name: "Expect", Value: "100-continue"}, {Name: "Content-Length", Value: "1"}}
	})},
	{"an upgrade", lines("GET / HTTP/1.1", "Host: a", "Upgrade: websocket", "Connection: keep-alive, Upgrade"), served(func(r *Request) {
		r.Upgrading, r.Fields = true, message.Fields{{Name: "Upgrade", Value: "websocket"}, {Name: "Connection", Value: "keep-alive, Upgrade"}}
	})},
	{"an upgrade without its connection option", lines("GET / HTTP/1.1", "Host: a", "Upgrade: websocket"), served(func(r *Request) {
		r.Fields = message.Fields{{Name: "Upgrade", Value: "websocket"}}
	})},
	{"an upgrade in HTTP/1.0", lines("GET / HTTP/1.0", "Host: a", "Upgrade: websocket", "Connection: Upgrade"), served(func(r *Request) {
		r.Minor, r.Close, r.Fields = 0, true, message.Fields{{Name: "Upgrade", Value: "websocket"}, {Name: "Connection", Value: "Upgrade"}}
	})},
}

func TestAcceptedRequests(t *testing.T) {
	for _, c := range servedRequests {
		t.Run(c.name, func(t *testing.T) {
			r, err := readRequest(c.head, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if d := differ(r.Request, c.want.Request); d != "" || r.Chunked != c.want.Chunked || r.Close != c.want.Close ||
				r.Upgrading != c.want.Upgrading || r.Continue != c.want.Continue {
				t.Errorf("got  %+v\nwant %+v", *r, c.want)
			}
		})
	}
}

// differ describes how two requests differ, or returns "".
func differ(a, b message.Request) string {
	if !slices.Equal(a.Fields, b.Fields) {
		return fmt.Sprintf("fields %q and %q", a.Fields, b.Fields)
	}
	a.Fields, b.Fields = nil, nil
	if x, y := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b); x != y {
		return x + " and " + y
	}
	return ""
}

func TestMessagesAtALimitAreAccepted(t *testing.T) {
	l := Limits{Head: 512, Target: 100, Fields: 8}
	for name, head := range map[string]string{
		"a head of 512 bytes":   lines("GET / HTTP/1.1", "Host: a", "X: "+strings.Repeat("a", 512-len("GET / HTTP/1.1rnHost: arnX: rnrn"))),
		"a target of 100 bytes": lines("GET /"+strings.Repeat("a", 99)+" HTTP/1.1", "Host: a"),
		"a method of 32 bytes":  lines(strings.Repeat("a", 32)+" / HTTP/1.1", "Host: a"),
		"eight fields":          lines("GET / HTTP/1.1", "Host: a", "1:", "2:", "3:", "4:", "5:", "6:", "7:"),
	} {
		if _, err := readRequest(head, l); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A parser that gets bytes no Scan has approved must not read past them, or
// accept a part.
func TestIncompleteRequestHeads(t *testing.T) {
	whole := lines("POST /a HTTP/1.1", "Host: a", "Content-Length: 5", "X: y")
	for i := range whole {
		if err := ParseRequest(whole[:i], &Limits{}, new(Request)); err == nil {
			t.Errorf("%q is accepted", whole[:i])
		}
	}
	if err := ParseRequest(whole+"x", &Limits{}, new(Request)); err == nil {
		t.Error("a head with bytes after it is accepted")
	}
}
