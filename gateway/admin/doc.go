// Package admin serves the gRPC admin API of a gateway.
//
// It authenticates and authorizes each call, turns requests into edits, states into
// responses and faults into gRPC statuses, and writes an audit log. It holds no
// desired state and is the only package that knows gRPC codes. It serves only unix
// sockets and listeners of ListenTCP, so the API is never reachable over a network
// without mutual TLS.
package admin
