// Package gateway runs the gateway process: it starts and stops every part of it
// in order, and makes edits live.
//
// Gateway.Apply (writer.go) is the only path from an edit to live traffic. A
// Gateway is made of parts with one job each: a writer owns the store and the live
// snapshot, servers own the admin API and ops, and feeds own the recent events and
// revisions. The Gateway waits for every goroutine that it started.
package gateway
