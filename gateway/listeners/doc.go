// Package listeners owns the sockets that clients connect to and the servers on
// them: it binds, hands sockets over between servers, drains, and waits for the
// end of everything it started.
//
// A change has two steps. Prepare binds what the next snapshot needs and may
// fail; Commit serves it and cannot. When Commit returns, no further connection
// is accepted for a listener that is gone, and its address is free.
package listeners
