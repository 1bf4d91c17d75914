// Package live describes the open connections of the gateway.
//
// It keeps no connection itself: an Entry belongs to the code that tracks the
// connection, which is an intake.Intake for clients and an upstream.Tracker for
// connections to upstreams. A Connection is a copy of what the tracking code knows at one
// moment, so it may be kept and used by any goroutine.
package live
