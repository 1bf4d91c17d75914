// Package diagnose answers the requests of DiagnosticsService: it probes upstreams,
// explains routes, flushes sessions and drains connections.
//
// A Diagnostics reads the live snapshot and changes no desired state. Probes end
// with the context of their request.
package diagnose
