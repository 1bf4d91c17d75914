// Package systemd talks to the service manager: it reports the state of the service, and
// stores descriptors that outlive the process.
//
// A Manager owns no resources: each message uses its own connection. A nil *Manager
// stands for a process without a service manager; every method works on it.
package systemd
