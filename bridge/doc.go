// Package bridge holds the packages that carry bytes and requests from
// listeners to TLS upstreams. It knows no gRPC and no proto: its packages take
// small option structs that gateway/snapshot fills.
//
//   - socket is one connected socket, read without holding a buffer while it blocks.
//   - upstream is a group of endpoints: balancing, dialing, TLS, results.
//   - route finds the action for a connection or request.
//   - l4 serves TCP listeners and owns the splice.
//   - l7 serves HTTP listeners.
//
// A table or upstream is immutable once built. A change builds new ones. Each connection
// keeps the table and upstream that it began with.
package bridge
