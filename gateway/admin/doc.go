// Package admin serves the gRPC admin API in front of a gateway.
//
// It authenticates and authorises each call, turns requests into edits, states
// into answers and faults into gRPC statuses, and keeps an audit log. It holds
// no desired state of its own and is the only package that knows gRPC codes.
// It serves unix sockets and what ListenTCP makes, and no other kind: there is no
// way to reach it in the clear over a network.
package admin
