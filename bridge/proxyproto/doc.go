// Package proxyproto reads and writes the PROXY protocol, in which a proxy
// announces the client of a connection
// (haproxy.org/download/3.4/doc/proxy-protocol.txt).
//
// The package github.com/pires/go-proxyproto implements the format. This
// package bounds what is read and decides which sources to trust. It consumes
// exactly the header; the caller owns the connection and reads the rest.
package proxyproto
