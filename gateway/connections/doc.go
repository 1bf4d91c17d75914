// Package connections lists the open connections of a gateway and closes those that match
// a filter. It keeps no connection: the listeners and the upstreams track theirs.
package connections
