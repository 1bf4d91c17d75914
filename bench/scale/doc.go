// Package scale measures a gateway that holds 10,000 resources of each kind:
// writes of one resource, the idle process, handshakes that choose among all
// certificates, and the start. It compares each figure with its target.
//
// A run owns the gateway that it starts and the directory that holds its store.
package scale
