// Package limit bounds the load that a listener accepts: how much at once and
// how much per time, in total and for each client.
//
// The caller decides what counts, requests or connections. A Limiter owns all
// state; Limits may change at any time.
package limit
