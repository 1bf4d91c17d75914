// Package gateway runs the gateway process: it starts and stops every part of it
// in order, and makes edits live.
//
// Gateway.Apply (apply.go) is the only path from an edit to live traffic. A
// Gateway owns the store, the live snapshot, the listeners' sockets and the admin
// servers, and waits for every goroutine that it started.
package gateway
