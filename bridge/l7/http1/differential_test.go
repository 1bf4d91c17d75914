package http1

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// Every message in this package's tables, and every message that the fuzzers
// find, also goes through net/http's parser. These tables explain each
// difference. A row that no message needs fails the tests, so the rows stay
// true.

// stricter are our errors for messages that net/http accepts.
var stricter = map[string]string{
	errBareLF.Reason:         "RFC 9112 2.2: a recipient may end a line there, and net/http does",
	errBareCR.Reason:         "RFC 9112 2.2: net/http accepts any number of them before a line feed",
	errFold.Reason:           "RFC 9112 5.2: it may be rejected, or replaced with blanks as net/http does",
	errMethodSize.Reason:     "RFC 9112 3: no server implements such a method",
	errRequestLine.Reason:    "RFC 9112 3: net/http accepts CONNECT without a target",
	errVersion.Reason:        "RFC 9110 15.6.6: net/http rejects some of them in its server, and treats HTTP/1.2 as 1.1, as RFC 9110 2.5 says",
	errPreface.Reason:        "RFC 9113 3.4: net/http's parser accepts it as a request, and its server checks again",
	errColonBlank.Reason:     "RFC 9112 5.1: net/http's parser keeps the blank in the name, and its server rejects that",
	errTarget.Reason:         "RFC 9112 3.2: net/http accepts any scheme, authority form and a user in a target",
	errTargetBytes.Reason:    "RFC 9112 3.2: net/http accepts non-ASCII bytes in a target",
	errFragment.Reason:       "RFC 9112 3.2: net/http reads it as part of the path",
	errAsterisk.Reason:       "RFC 9112 3.2.4: net/http accepts it for any method",
	errConnect.Reason:        "RFC 9112 3.2.3: net/http accepts a path, any host, and a missing port",
	errNoHost.Reason:         "RFC 9112 3.2: net/http checks it in its server",
	errHost.Reason:           "RFC 9110 7.2: net/http has a looser rule, in its server",
	errHostDiffer.Reason:     "RFC 9112 3.2.2: net/http ignores Host then, as the RFC says; an upstream might not",
	errExpect.Reason:         "RFC 9110 10.1.1: net/http checks it in its server",
	errConnection.Reason:     "RFC 9110 7.6.1: net/http reads only the options it knows",
	errOptions.Reason:        "a bound on work: net/http forwards options and does not check them",
	errLength.Reason:         "RFC 9112 6.3: the grammar allows leading zeros, but some programs read them as octal",
	errLengths.Reason:        "RFC 9112 6.3: equal lengths may be read as one, and net/http does so",
	errLengthSize.Reason:     "RFC 9110 8.6: 2^63-1 itself, to which no counter can add",
	errLengthCoding.Reason:   "RFC 9112 6.1: Transfer-Encoding overrides Content-Length, or the message is rejected",
	errCodingVersion.Reason:  "RFC 9112 6.1: faulty framing; net/http ignores Transfer-Encoding in HTTP/1.0",
	errBodySize.Reason:       "RFC 9110 15.5.14: a limit, which net/http leaves to its handlers",
	errStatusLine.Reason:     "RFC 9112 4: net/http accepts no blank after the code, and several before it",
	errStatus.Reason:         "RFC 9110 15: net/http accepts any three digits",
	errStatusVersion.Reason:  "RFC 9112 2.3: net/http accepts any version",
	errReason.Reason:         "RFC 9112 4: net/http does not check the reason",
	errBodiless.Reason:       "RFC 9110 8.6, RFC 9112 6.1: net/http assumes no body, and closes the connection",
	errSwitch.Reason:         "RFC 9110 15.2.2: net/http checks it in its transport",
	errInterimVersion.Reason: "RFC 9110 15.2: net/http accepts interim responses in HTTP/1.0",
}

// laxer holds parts of net/http's errors for messages that we accept.
var laxer = map[string]string{
	`invalid URL escape`:        "RFC 3986 2.1: package route normalizes paths, and rejects that",
	`bad trailer key`:           "RFC 9110 6.6.2: Trailer is only a hint; we check the trailer itself",
	`malformed HTTP request ""`: "RFC 9112 2.2: an empty line before a request should be ignored; we ignore one",
}

// readDifferently are the messages that both accept but read differently.
var readDifferently = []struct {
	reason  string
	applies func(we, they string) bool
}{
	{"net/http reports the chunks that a 200 instead of the 304 would have; we report that no body follows",
		func(we, they string) bool {
			return strings.HasPrefix(we, "304") && we == strings.Replace(they, "chunked=true", "chunked=false", 1)
		}},
	{"no response follows a 101: net/http enforces that in its transport",
		func(we, they string) bool {
			return strings.HasPrefix(we, "101") && we == strings.Replace(they, "length=0 chunked=false close=false", "length=-1 chunked=false close=true", 1)
		}},
}

// outcome formats a parsed message for comparison.
func outcome(first string, length int64, chunked, closes bool, fields []string) string {
	slices.SortStableFunc(fields, func(a, b string) int {
		x, _, _ := strings.Cut(a, ":")
		y, _, _ := strings.Cut(b, ":")
		return strings.Compare(x, y)
	})
	return fmt.Sprintf("%s length=%d chunked=%v close=%v %q", first, length, chunked, closes, fields)
}

// ourFields and theirFields return the comparable fields of a header. net/http
// removes the fields it has interpreted (Host, Trailer, Transfer-Encoding, a
// response's "Connection: close") and may add Cache-Control.
func ourFields(f message.Fields) (all []string) {
	for _, f := range f {
		if name := textproto.CanonicalMIMEHeaderKey(f.Name); compared(name) {
			all = append(all, name+": "+f.Value)
		}
	}
	return all
}

func compared(name string) bool {
	return !slices.Contains([]string{"Transfer-Encoding", "Trailer", "Host", "Connection", "Cache-Control"}, name)
}

func theirFields(h http.Header) (all []string) {
	for name, values := range h {
		if compared(name) {
			for _, v := range values {
				all = append(all, name+": "+v)
			}
		}
	}
	return all
}

func ourRequest(in string) (string, error) {
	r, err := readRequest(in, Limits{Head: 1 << 20, Target: 1 << 20, Fields: 1 << 20, Body: 1 << 40})
	if err != nil {
		return "", err
	}
	target := r.Target
	if r.Method == "CONNECT" {
		target = r.Authority
	}
	return outcome(r.Method+" "+target+" "+strings.ToLower(r.Authority), r.Length, r.Chunked, r.Close, ourFields(r.Fields)), nil
}

func theirRequest(in string) (string, error) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(in)))
	if err != nil {
		return "", err
	}
	target := r.RequestURI
	if r.URL.Scheme != "" {
		_, target, _ = strings.Cut(target, "://")
		_, rest, _ := strings.Cut(target, r.URL.Host)
		if target = rest; target == "" && r.Method == "OPTIONS" {
			target = "*"
		} else if target == "" || target[0] == '?' {
			target = "/" + target
		}
	}
	return outcome(r.Method+" "+target+" "+strings.ToLower(r.Host), r.ContentLength, len(r.TransferEncoding) > 0, r.Close, theirFields(r.Header)), nil
}

func ourResponse(in string) (string, error) {
	r, err := readResponse(in, "GET", Limits{Head: 1 << 20, Fields: 1 << 20, Body: 1 << 40})
	if err != nil {
		return "", err
	}
	return outcome(fmt.Sprint(r.Status, " ", r.Reason), r.Length, r.Chunked, r.Close, ourFields(r.Fields)), nil
}

func theirResponse(in string) (string, error) {
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(in)), nil)
	if err != nil {
		return "", err
	}
	return outcome(r.Status, r.ContentLength, len(r.TransferEncoding) > 0, r.Close, theirFields(r.Header)), nil
}

// explain returns the row that says why two parsers differ on a message, or ""
// if they agree. It returns an error if no row explains the difference.
func explain(in string, ours func(string) (string, error), theirs func(string) (string, error)) (row string, err error) {
	we, err := ours(in)
	if err == errUnfinished {
		return "", nil // net/http accepts the end of its input as the end of the head
	}
	they, theirErr := theirs(in)
	var e *Error
	switch {
	case err != nil && theirErr != nil, err == nil && theirErr == nil && we == they:
		return "", nil
	case errors.As(err, &e):
		if stricter[e.Reason] == "" {
			return "", fmt.Errorf("we reject: %v; they: %s", e, they)
		}
		return e.Reason, nil
	case theirErr != nil:
		for row := range laxer {
			if strings.Contains(theirErr.Error(), row) {
				return row, nil
			}
		}
		return "", fmt.Errorf("net/http rejects: %v; we: %s", theirErr, we)
	}
	for _, o := range readDifferently {
		if o.applies(we, they) {
			return o.reason, nil
		}
	}
	return "", fmt.Errorf("we:   %s\nthey: %s", we, they)
}

func TestDifferencesFromNetHTTPAreExplained(t *testing.T) {
	used := map[string]bool{}
	try := func(in string, ours func(string) (string, error), theirs func(string) (string, error)) {
		row, err := explain(in, ours, theirs)
		if err != nil {
			t.Errorf("%.300q\n%v", in, err)
		}
		used[row] = true
	}
	for _, in := range requestSeeds() {
		try(in, ourRequest, theirRequest)
	}
	for _, in := range responseSeeds() {
		try(in, ourResponse, theirResponse)
	}
	for row := range stricter {
		if !used[row] {
			t.Errorf("we are not stricter in this: %s", row)
		}
	}
	for row := range laxer {
		if !used[row] {
			t.Errorf("we are not laxer in this: %s", row)
		}
	}
	for _, o := range readDifferently {
		if !used[o.reason] {
			t.Errorf("we read this as net/http does: %s", o.reason)
		}
	}
}

func FuzzRequestsAgainstNetHTTP(f *testing.F) {
	for _, in := range requestSeeds() {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := explain(in, ourRequest, theirRequest); err != nil {
			t.Errorf("%q\n%v", in, err)
		}
	})
}

func FuzzResponsesAgainstNetHTTP(f *testing.F) {
	for _, in := range responseSeeds() {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if _, err := explain(in, ourResponse, theirResponse); err != nil {
			t.Errorf("%q\n%v", in, err)
		}
	})
}
