// Package http1 parses and writes HTTP/1.x messages: heads, chunked bodies and
// trailers, by the strictest reading of RFC 9110 and RFC 9112.
//
// The package does no I/O. The caller owns the buffer of received bytes, and a
// Scan and a Chunked for each direction:
//
//	n, err := scan.RequestEnd(buf, &limits)              // 0: more is needed
//	err = http1.ParseRequest(string(buf[:n]), &limits, &request)
//	data, n, err := chunked.Next(buf)                    // if request.Chunked
//
// The string of the head is the only allocation of a request: parsed values are
// substrings of it, and slices are reused. Every error is an *Error with the
// status to answer. The caller then closes the connection, because the start of
// the next request is unknown. docs/http.md lists every rule, and the choice
// made wherever an RFC leaves one.
//
// Output is checked as strictly as input. No string can make a writer emit a
// second head, or a body whose length differs from its framing.
package http1
