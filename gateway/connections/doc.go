// Package connections lists the open connections of a gateway and closes those that match
// a filter. It holds no connections: the listeners and the upstreams track their own.
package connections
