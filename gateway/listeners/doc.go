// Package listeners binds the sockets that clients connect to and runs the servers on
// them.
//
// A Set owns the sockets and the servers: it hands sockets over between servers, drains
// removed listeners, and waits for every goroutine it started. A change has two steps.
// Prepare binds the sockets of the next snapshot and may fail; Commit serves them and
// cannot fail. When Commit returns, no connection is accepted for a removed listener,
// and its address is free.
package listeners
