// Package systemd talks to the service manager: it reports the state of the service, and
// stores descriptors that outlive the process.
//
// A Manager owns nothing: each message opens its own connection to the manager. Every method
// works on a nil *Manager, which stands for a process without a service manager.
package systemd
