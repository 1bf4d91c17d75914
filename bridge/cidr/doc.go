// Package cidr holds sets of IP addresses given as prefixes, and tests
// membership.
//
// Every value is immutable once made, so it may be shared freely. A lookup
// takes time that grows with the logarithm of the number of prefixes, and
// allocates nothing.
package cidr
