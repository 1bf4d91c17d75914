// Package handover passes listening sockets from one process of the gateway to the next,
// so that no client is refused while a process is replaced.
//
// A Sockets owns the sockets that the process inherited, until a listener takes them. It
// knows every listening socket of the process and copies it to the service manager's
// store. The listeners own the sockets themselves.
package handover
