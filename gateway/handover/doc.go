// Package handover passes listening sockets from one process of the gateway to the next,
// so that replacing a process refuses no client.
//
// A Sockets owns the sockets that the process inherited, until a listener takes them. It
// tracks every listening socket of the process and copies each to the service manager's
// store. Listeners own the sockets that they serve.
package handover
