package http1

import "fmt"

// An Error says why a message is rejected.
type Error struct {
	// Status is the status that answers the request before the connection is
	// closed. For a response it is 502.
	Status  int
	Section string // the RFC section with the rule
	Reason  string // contains nothing from the peer
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%s)", e.Reason, e.Section) }

// ErrPreface reports the first line of an HTTP/2 connection (RFC 9113, section
// 3.4). A server that supports HTTP/2 continues with it if the line is the
// first on its connection. Everywhere else it is an *Error like the others,
// with status 505.
var ErrPreface error = errPreface

// The rules. A test compares them with the tables in docs/http.md.
var (
	// Heads.
	errHeadSize   = &Error{431, "RFC 6585 5", "the header is too large"}
	errFieldCount = &Error{431, "RFC 6585 5", "the header has too many fields"}
	errBareLF     = &Error{400, "RFC 9112 2.2", "a line ends in a line feed without a carriage return"}
	errBareCR     = &Error{400, "RFC 9112 2.2", "a carriage return without a line feed"}
	errEmptyLines = &Error{400, "RFC 9112 2.2", "more than one empty line before the request"}
	errNotHTTP    = &Error{400, "RFC 9112 2.1", "not HTTP"}
	errNoEnd      = &Error{400, "RFC 9112 2.1", "the header does not end in an empty line"}
	errFold       = &Error{400, "RFC 9112 5.2", "a folded field, or a space before the first field"}
	errNoColon    = &Error{400, "RFC 9112 5", "a header line without a colon"}
	errColonBlank = &Error{400, "RFC 9112 5.1", "a space between a field name and its colon"}
	errNoName     = &Error{400, "RFC 9112 5", "a field without a name"}
	errName       = &Error{400, "RFC 9110 5.1", "a field name that is not a token"}
	errControl    = &Error{400, "RFC 9110 5.5", "a control character in a field value"}

	// Request lines.
	errPreface      = &Error{505, "RFC 9113 3.4", "the start of an HTTP/2 connection"}
	errRequestLine  = &Error{400, "RFC 9112 3", "a request line that is not method, target and version"}
	errMethod       = &Error{400, "RFC 9112 3.1", "a method that is not a token"}
	errMethodSize   = &Error{501, "RFC 9112 3", "a method that is too long"}
	errTargetSize   = &Error{414, "RFC 9112 3", "the target is too long"}
	errTarget       = &Error{400, "RFC 9112 3.2", "a target in a form that its method does not allow"}
	errTargetBytes  = &Error{400, "RFC 9112 3.2", "a character that no target may contain"}
	errFragment     = &Error{400, "RFC 9112 3.2", "a fragment in the target"}
	errAsterisk     = &Error{400, "RFC 9112 3.2.4", `the target "*" with a method other than OPTIONS`}
	errConnect      = &Error{400, "RFC 9112 3.2.3", "a CONNECT whose target is not host:port"}
	errVersion      = &Error{505, "RFC 9110 15.6.6", "a version other than HTTP/1.0 and HTTP/1.1"}
	errVersionBytes = &Error{400, "RFC 9112 2.3", "a malformed version"}

	// Host and Expect.
	errNoHost     = &Error{400, "RFC 9112 3.2", "no Host"}
	errHosts      = &Error{400, "RFC 9112 3.2", "more than one Host"}
	errHost       = &Error{400, "RFC 9110 7.2", "a Host that is not a host with an optional port"}
	errHostDiffer = &Error{400, "RFC 9112 3.2.2", "a Host that differs from the target's"}
	errExpect     = &Error{417, "RFC 9110 10.1.1", "an expectation other than 100-continue"}
	errConnection = &Error{400, "RFC 9110 7.6.1", "a connection option that is not a token"}
	errOptions    = &Error{431, "RFC 9110 7.6.1", "too many connection options"}

	// Framing.
	errLength         = &Error{400, "RFC 9112 6.3", "a Content-Length that is not a plain decimal number"}
	errLengths        = &Error{400, "RFC 9112 6.3", "more than one Content-Length"}
	errLengthSize     = &Error{413, "RFC 9110 8.6", "a Content-Length too large to count"}
	errLengthCoding   = &Error{400, "RFC 9112 6.1", "both Content-Length and Transfer-Encoding"}
	errCodingVersion  = &Error{400, "RFC 9112 6.1", "a Transfer-Encoding in HTTP/1.0"}
	errCoding         = &Error{400, "RFC 9112 6.3", "a Transfer-Encoding that does not end in a single chunked without parameters"}
	errCodingUnknown  = &Error{501, "RFC 9112 6.1", "a transfer coding other than chunked"}
	errBodySize       = &Error{413, "RFC 9110 15.5.14", "the body is too large"}
	errChunkSize      = &Error{400, "RFC 9112 7.1", "a chunk size that is not a plain hexadecimal number"}
	errChunkSizeSize  = &Error{400, "RFC 9112 7.1", "a chunk size of more than 16 digits, or too large to count"}
	errChunkEnd       = &Error{400, "RFC 9112 7.1", "a chunk that does not end where its size says"}
	errChunkLine      = &Error{400, "RFC 9112 7.1", "a chunk size that does not end in carriage return and line feed"}
	errExtension      = &Error{400, "RFC 9112 7.1.1", "a malformed chunk extension"}
	errExtensionSize  = &Error{400, "RFC 9112 7.1.1", "chunk extensions that are too long"}
	errTrailerSize    = &Error{431, "RFC 9110 6.5", "the trailer is too large"}
	errTrailerFraming = &Error{400, "RFC 9110 6.5.1", "a trailer field that affects framing or routing"}

	// Responses. Their status is always 502.
	errStatusLine     = &Error{502, "RFC 9112 4", "a status line that is not version, status code and reason"}
	errStatus         = &Error{502, "RFC 9110 15", "a status code outside 100 to 599"}
	errReason         = &Error{502, "RFC 9112 4", "a control character in the reason"}
	errStatusVersion  = &Error{502, "RFC 9112 2.3", "a response with a version other than HTTP/1.0 and HTTP/1.1"}
	errBodiless       = &Error{502, "RFC 9110 8.6", "a body announced for a status that allows none"}
	errSwitch         = &Error{502, "RFC 9110 15.2.2", "101 without Upgrade as a field and a connection option"}
	errInterimVersion = &Error{502, "RFC 9110 15.2", "an interim response in HTTP/1.0"}
)

// inResponse returns err with status 502: every fault in a response leads to
// this status.
func inResponse(err error) error {
	if e, ok := err.(*Error); ok && e.Status != 502 {
		return &Error{502, e.Section, e.Reason}
	}
	return err
}
