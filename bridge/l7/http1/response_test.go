package http1

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// readResponse parses the head at the start of input, as a client does that
// receives it in one piece.
func readResponse(input, method string, l Limits) (*Response, error) {
	var s Scan
	n, err := s.ResponseEnd([]byte(input), &l)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errUnfinished
	}
	r := new(Response)
	return r, ParseResponse(input[:n], method, &l, r)
}

var refusedResponses = []struct {
	name, head string
	want       *Error
}{
	{"an empty line before the response", "\r\nHTTP/1.1 200 OK\r\n\r\n", errNotHTTP},
	{"a body left over from the previous response", "helloHTTP/1.1 200 OK\r\n\r\n", errNotHTTP},
	{"a simple response of HTTP/0.9", "<html>", errNotHTTP},
	{"another protocol", "ICY 200 OK\r\n\r\n", errNotHTTP},
	{"an SSH banner", "SSH-2.0-x\r\n", errNotHTTP},
	{"HTTP in lower case", "http/1.1 200 OK\r\n\r\n", errNotHTTP},
	{"frames of HTTP/2", "\x00\x00\x12\x04\x00", errNotHTTP},
	{"bare line feeds", "HTTP/1.1 200 OK\n\n", errBareLF},
	{"a bare line feed in the header", "HTTP/1.1 200 OK\r\nX: y\n\r\n", errBareLF},
	{"a bare carriage return in the reason", "HTTP/1.1 200 O\rK\r\n\r\n", errBareCR},
	{"a doubled carriage return after the reason", "HTTP/1.1 200 OK\r\r\n\r\n", errBareCR},
	{"a NUL in the reason", lines("HTTP/1.1 200 O\x00K"), errReason},
	{"an escape sequence in the reason", lines("HTTP/1.1 200 \x1b[0m"), errReason},
	{"no status code", lines("HTTP/1.1 OK"), errStatusLine},
	{"no blank after the status code", lines("HTTP/1.1 200"), errStatusLine},
	{"a status code of two digits", lines("HTTP/1.1 20 OK"), errStatusLine},
	{"a status code of four digits", lines("HTTP/1.1 2000 OK"), errStatusLine},
	{"a status code with a sign", lines("HTTP/1.1 +20 OK"), errStatusLine},
	{"a status code with a fraction", lines("HTTP/1.1 200.1 OK"), errStatusLine},
	{"a status code in letters", lines("HTTP/1.1 2OO OK"), errStatusLine},
	{"two blanks before the status code", lines("HTTP/1.1  200 OK"), errStatusLine},
	{"a tab before the status code", lines("HTTP/1.1\t200 OK"), errStatusLine},
	{"a tab after the status code", lines("HTTP/1.1 200\tOK"), errStatusLine},
	{"status code 0", lines("HTTP/1.1 000 x"), errStatus},
	{"status code 99", lines("HTTP/1.1 099 x"), errStatus},
	{"status code 600", lines("HTTP/1.1 600 x"), errStatus},
	{"status code 999", lines("HTTP/1.1 999 x"), errStatus},
	{"HTTP/0.9", lines("HTTP/0.9 200 OK"), errStatusVersion},
	{"HTTP/1.2", lines("HTTP/1.2 200 OK"), errStatusVersion},
	{"HTTP/2.0", lines("HTTP/2.0 200 OK"), errStatusVersion},
	{"HTTP/2", lines("HTTP/2 200 OK"), errStatusVersion},
	{"a longer version", lines("HTTP/1.10 200 OK"), errStatusLine},
	{"a folded field", lines("HTTP/1.1 200 OK", "X: y", " z"), errFold},
	{"a blank before a colon", lines("HTTP/1.1 200 OK", "Content-Length : 5"), errColonBlank},
	{"a line without a colon", lines("HTTP/1.1 200 OK", "X"), errNoColon},
	{"a field without a name", lines("HTTP/1.1 200 OK", ": x"), errNoName},
	{"a name that is not a token", lines("HTTP/1.1 200 OK", "X@Y: x"), errName},
	{"a NUL in a value", lines("HTTP/1.1 200 OK", "X: \x00"), errControl},
	{"a head over the limit", lines("HTTP/1.1 200 OK", "X: "+strings.Repeat("y", 600)), errHeadSize},
	{"a head without an end", "HTTP/1.1 200 " + strings.Repeat("y", 600), errHeadSize},
	{"too many fields", lines("HTTP/1.1 200 OK", "1:", "2:", "3:", "4:", "5:", "6:", "7:", "8:", "9:"), errFieldCount},

	{"two lengths", lines("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 6"), errLengths},
	{"two lengths that are the same", lines("HTTP/1.1 200 OK", "Content-Length: 5", "Content-Length: 5"), errLengths},
	{"a list of lengths", lines("HTTP/1.1 200 OK", "Content-Length: 5, 5"), errLength},
	{"a negative length", lines("HTTP/1.1 200 OK", "Content-Length: -1"), errLength},
	{"a length with leading zeros", lines("HTTP/1.1 200 OK", "Content-Length: 05"), errLength},
	{"a length over 63 bits", lines("HTTP/1.1 200 OK", "Content-Length: 9223372036854775808"), errLengthSize},
	{"a length and chunks", lines("HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked"), errLengthCoding},
	{"a length and chunks in an answer to HEAD", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Content-Length: 5"), errLengthCoding},
	{"chunks in HTTP/1.0", lines("HTTP/1.0 200 OK", "Transfer-Encoding: chunked"), errCodingVersion},
	{"another coding", lines("HTTP/1.1 200 OK", "Transfer-Encoding: gzip"), errCoding},
	{"identity", lines("HTTP/1.1 200 OK", "Transfer-Encoding: identity"), errCoding},
	{"chunked before another coding", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked, gzip"), errCoding},
	{"chunked twice", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked, chunked"), errCoding},
	{"another coding before chunked", lines("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked"), errCodingUnknown},
	{"too many connection options", lines("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: a"+strings.Repeat(", b", 32)), errOptions},
	{"a connection option that is not a token", lines("HTTP/1.1 200 OK", "Content-Length: 0", "Connection: a b"), errConnection},

	{"204 with a length", lines("HTTP/1.1 204 No Content", "Content-Length: 5"), errBodiless},
	{"204 with chunks", lines("HTTP/1.1 204 No Content", "Transfer-Encoding: chunked"), errBodiless},
	{"100 with a length", lines("HTTP/1.1 100 Continue", "Content-Length: 5"), errBodiless},
	{"103 with chunks", lines("HTTP/1.1 103 Early Hints", "Transfer-Encoding: chunked"), errBodiless},
	{"101 with a length", lines("HTTP/1.1 101 x", "Content-Length: 5", "Upgrade: x", "Connection: upgrade"), errBodiless},
	{"101 without Upgrade", lines("HTTP/1.1 101 x", "Connection: upgrade"), errSwitch},
	{"101 with an empty Upgrade", lines("HTTP/1.1 101 x", "Connection: upgrade", "Upgrade:"), errSwitch},
	{"101 without its connection option", lines("HTTP/1.1 101 x", "Upgrade: x"), errSwitch},
	{"an interim response in HTTP/1.0", lines("HTTP/1.0 100 Continue"), errInterimVersion},
	{"101 in HTTP/1.0", lines("HTTP/1.0 101 x", "Upgrade: x", "Connection: upgrade"), errInterimVersion},
}

func TestRejectedResponses(t *testing.T) {
	for _, c := range refusedResponses {
		t.Run(c.name, func(t *testing.T) {
			for _, method := range []string{"GET", "HEAD", "POST", "CONNECT"} {
				r, err := readResponse(c.head, method, Limits{Head: 512, Fields: 8})
				var e *Error
				if !errors.As(err, &e) || e.Status != 502 || e.Reason != c.want.Reason || e.Section != c.want.Section {
					t.Errorf("%s: got %v, want %v\n%+v", method, err, c.want, r)
				}
			}
		})
	}
}

func field(name, value string) message.Fields { return message.Fields{{Name: name, Value: value}} }

var servedResponses = []struct {
	name, method, head string
	want               Response
}{
	{"a length", "GET", lines("HTTP/1.1 200 OK", "Content-Length: 5"),
		Response{Response: message.Response{Length: 5, Declared: 5, Fields: field("Content-Length", "5")}, Minor: 1}},
	{"chunks", "GET", lines("HTTP/1.1 200 OK", "Transfer-Encoding: CHUNKED"),
		Response{Response: message.Response{Length: -1, Declared: -1, Fields: field("Transfer-Encoding", "CHUNKED")}, Minor: 1, Chunked: true}},
	{"neither", "GET", lines("HTTP/1.1 200 OK"),
		Response{Response: message.Response{Length: -1, Declared: -1}, Minor: 1, UntilClose: true, Close: true}},
	{"neither a length nor chunks, with keep-alive", "GET", lines("HTTP/1.1 200 OK", "Connection: keep-alive"),
		Response{Response: message.Response{Length: -1, Declared: -1, Fields: field("Connection", "keep-alive")}, Minor: 1, UntilClose: true, Close: true}},
	{"an error without a length", "POST", lines("HTTP/1.1 500 x"),
		Response{Response: message.Response{Status: 500, Length: -1, Declared: -1}, Minor: 1, UntilClose: true, Close: true}},
	{"a response without a reason", "GET", lines("HTTP/1.1 200 ", "Content-Length: 0"),
		Response{Response: message.Response{Declared: 0, Fields: field("Content-Length", "0")}, Minor: 1}},
	{"HTTP/1.0", "GET", lines("HTTP/1.0 200 OK", "Content-Length: 5"),
		Response{Response: message.Response{Length: 5, Declared: 5, Fields: field("Content-Length", "5")}, Close: true}},
	{"HTTP/1.0 with keep-alive", "GET", lines("HTTP/1.0 304 x", "Connection: keep-alive"),
		Response{Response: message.Response{Status: 304, Declared: -1, Fields: field("Connection", "keep-alive")}}},
	{"close", "HEAD", lines("HTTP/1.1 200 OK", "Connection: close"),
		Response{Response: message.Response{Declared: -1, Fields: field("Connection", "close")}, Minor: 1, Close: true}},
	{"an answer to HEAD with a length", "HEAD", lines("HTTP/1.1 200 OK", "Content-Length: 5"),
		Response{Response: message.Response{Declared: 5, Fields: field("Content-Length", "5")}, Minor: 1}},
	{"an answer to HEAD with chunks", "HEAD", lines("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"),
		Response{Response: message.Response{Declared: -1, Fields: field("Transfer-Encoding", "chunked")}, Minor: 1}},
	{"304 with a length", "GET", lines("HTTP/1.1 304 Not Modified", "Content-Length: 5"),
		Response{Response: message.Response{Status: 304, Declared: 5, Fields: field("Content-Length", "5")}, Minor: 1}},
	{"304 with chunks", "GET", lines("HTTP/1.1 304 Not Modified", "Transfer-Encoding: chunked"),
		Response{Response: message.Response{Status: 304, Declared: -1, Fields: field("Transfer-Encoding", "chunked")}, Minor: 1}},
	{"204", "GET", lines("HTTP/1.1 204 No Content"),
		Response{Response: message.Response{Status: 204, Declared: -1}, Minor: 1}},
	{"204 with a length of 0", "GET", lines("HTTP/1.1 204 No Content", "Content-Length: 0"),
		Response{Response: message.Response{Status: 204, Fields: field("Content-Length", "0")}, Minor: 1}},
	{"an interim response", "GET", lines("HTTP/1.1 103 Early Hints", "Link: x"),
		Response{Response: message.Response{Status: 103, Declared: -1, Fields: field("Link", "x")}, Minor: 1}},
	{"an interim response to CONNECT", "CONNECT", lines("HTTP/1.1 100 Continue"),
		Response{Response: message.Response{Status: 100, Declared: -1}, Minor: 1}},
	{"101", "GET", lines("HTTP/1.1 101 Switching Protocols", "Upgrade: x", "Connection: a, upgrade"),
		Response{Response: message.Response{Status: 101, Length: -1, Declared: -1,
			Fields: message.Fields{{Name: "Upgrade", Value: "x"}, {Name: "Connection", Value: "a, upgrade"}}}, Minor: 1, Switched: true, Close: true}},
	{"a tunnel", "CONNECT", lines("HTTP/1.1 200 OK", "Content-Length: 5"),
		Response{Response: message.Response{Length: -1, Declared: 5, Fields: field("Content-Length", "5")}, Minor: 1, Switched: true, Close: true}},
	{"a rejected tunnel", "CONNECT", lines("HTTP/1.1 403 x", "Content-Length: 5"),
		Response{Response: message.Response{Status: 403, Length: 5, Declared: 5, Fields: field("Content-Length", "5")}, Minor: 1}},
	{"a Host in a response", "GET", lines("HTTP/1.1 304 x", "Host: a"),
		Response{Response: message.Response{Status: 304, Declared: -1, Fields: field("Host", "a")}, Minor: 1}},
	{"a reason of any bytes", "GET", lines("HTTP/1.1 304 \u00e9 \t\""),
		Response{Response: message.Response{Status: 304, Declared: -1}, Minor: 1}},
}

func TestAcceptedResponses(t *testing.T) {
	for _, c := range servedResponses {
		t.Run(c.name, func(t *testing.T) {
			r, err := readResponse(c.head, c.method, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if c.want.Status == 0 {
				c.want.Status = 200
			}
			same := slices.Equal(r.Fields, c.want.Fields) && r.Status == c.want.Status && r.Length == c.want.Length && r.Declared == c.want.Declared &&
				r.Minor == c.want.Minor && r.Chunked == c.want.Chunked && r.UntilClose == c.want.UntilClose && r.Switched == c.want.Switched && r.Close == c.want.Close
			if !same {
				t.Errorf("got  %+v\nwant %+v", *r, c.want)
			}
		})
	}
}

func TestTheReasonIsKeptUnchanged(t *testing.T) {
	r, err := readResponse(lines("HTTP/1.1 304 \u00e9 \t\""), "GET", Limits{})
	if err != nil || r.Reason != "\u00e9 \t\"" {
		t.Errorf("%q %v", r.Reason, err)
	}
}

func TestIncompleteResponseHeads(t *testing.T) {
	whole := lines("HTTP/1.1 200 OK", "Content-Length: 5", "X: y")
	for i := range whole {
		if err := ParseResponse(whole[:i], "GET", &Limits{}, new(Response)); err == nil {
			t.Errorf("%q is accepted", whole[:i])
		}
	}
	if err := ParseResponse(whole+"x", "GET", &Limits{}, new(Response)); err == nil {
		t.Error("a head with bytes after it is accepted")
	}
}
