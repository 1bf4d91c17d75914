// Package proxyproto reads and writes the PROXY protocol, in which a proxy
// announces the client of a connection
// (haproxy.org/download/3.4/doc/proxy-protocol.txt).
//
// The package github.com/pires/go-proxyproto implements the format. This
// package bounds the header and decides which sources to trust. It consumes
// exactly the header. The caller owns the connection and reads the rest.
package proxyproto
