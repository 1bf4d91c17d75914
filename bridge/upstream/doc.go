// Package upstream knows the endpoints that serve the same thing: it chooses
// among them, dials them over TLS or plaintext, and keeps what became of it
// for the status.
//
// An Upstream is immutable but for its counters: who dialled a connection owns
// it. Only those that are kept warm, ready to be used, are the Upstream's, from
// Start to Retire; without them it has nothing to close. A Tracker,
// which the revisions of an upstream share, knows them all the same, so that
// they can be counted and drained by the identity they were made with. The
// session store of each certs.Client lives and dies with its Upstream, so a
// session never outlives the revision it was made under.
package upstream
