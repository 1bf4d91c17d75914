// Package l4 serves TCP listeners: it connects each client to an upstream and
// carries their bytes both ways.
//
// One goroutine takes a connection from accept through the client's handshake and
// the dial of an upstream, and then ends. From then on a splice owns both
// connections: a loop of package splice carries the bytes, and the connection has
// no goroutine. The Server owns the rest: the record of its open connections, their
// limits and counts, and the shutdown.
//
// A half-close of one side is forwarded as a half-close, and any other end as a reset.
// So a stream that ends cleanly is complete.
package l4
