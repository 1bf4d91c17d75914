// Package gateway is the process: it starts things in order, holds the one road
// from an edit to live traffic (apply.go), owns the sockets that clients connect
// to, and ends everything it started.
package gateway
