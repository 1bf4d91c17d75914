// Package validity verifies the peers of live connections again when trust,
// revocation lists, names, pins, the policy for clients or the clock change, and
// ends connections whose peer no longer verifies.
//
// A Set holds the connections of one listener or upstream. Its owner passes it a
// Policy with each revision. The Set verifies on its own goroutine and holds no
// lock meanwhile, so traffic never waits for it. Before a connection gets work,
// its owner calls Member.Check, which costs a comparison unless the policy has
// changed.
package validity
