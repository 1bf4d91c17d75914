// Package http1 reads and writes HTTP/1.x messages: heads, chunked bodies and
// trailers, by the strictest reading of RFC 9110 and RFC 9112.
//
// It does no I/O and keeps nothing. Its caller has a buffer of what arrived:
//
//	n, err := scan.RequestEnd(buf, &limits)              // 0: more is needed
//	err = http1.ParseRequest(string(buf[:n]), &limits, &request)
//	data, n, err := chunked.Next(buf)                    // if request.Chunked
//
// The string of a head is the one allocation of a request: what is parsed are
// substrings of it, and slices are used again. Every error is an *Error, which
// says what a request is to be answered with; its connection is then closed,
// because nobody knows where the next request begins. What is refused, and
// where RFCs leave a choice which was taken, is in docs/http.md.
//
// What is written is checked as what is read: no string can make a writer emit
// a second head, or a body of another length than its framing says.
package http1
