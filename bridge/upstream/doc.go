// Package upstream chooses among the endpoints of an upstream, dials them over
// TLS or plaintext, and records the results for the status.
//
// An Upstream is immutable except for its counters. The caller that dialed a
// connection owns it. The Upstream owns only warm connections, from Start to
// Retire; without them it has nothing to close. A Tracker, which the revisions
// of an upstream share, counts all connections and drains them by client
// certificate. Each certs.Client has its own session store, so a session never
// outlives the revision that created it.
package upstream
