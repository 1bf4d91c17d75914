// Package egress connects to servers through an egress proxy, over HTTP CONNECT or
// SOCKS5.
//
// Dial returns a kernel socket that belongs to the caller and carries the server's
// bytes from the first one. Errors have a reason of package certs:
// EGRESS_PROXY_FAILED and EGRESS_PROXY_REFUSED are about the proxy, and every other
// reason is the proxy's report about the server. No error contains credentials.
package egress
