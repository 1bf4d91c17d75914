// Package proxyproto reads and writes the PROXY protocol, by which one proxy
// tells the next for whom a connection is
// (haproxy.org/download/3.4/doc/proxy-protocol.txt).
//
// The format is github.com/pires/go-proxyproto's. What is here is how much is
// read, and from whom: a header is taken to the byte, so that the connection
// can be read on by whoever comes next, and only from those who are trusted.
package proxyproto
