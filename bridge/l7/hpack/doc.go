// Package hpack encodes header fields for HTTP/2 (RFC 7541).
//
// An Encoder does the same as that of golang.org/x/net/http2/hpack, which takes twice as
// long for a typical head (BenchmarkHead), and whose table refers to the strings of its
// caller: one short field of an HTTP/1 head would keep the whole head in memory for as
// long as the field is in the table. Blocks are decoded by golang.org/x/net/http2/hpack.
package hpack
