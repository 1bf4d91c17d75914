// Package live describes the open connections of the gateway.
//
// It holds no connections itself. An Entry belongs to the code that tracks the connection:
// an intake.Intake for clients, an upstream.Tracker for connections to upstreams. A
// Connection is a copy of the tracked facts at one moment, so any goroutine may keep and
// use it.
package live
