// Package cidr holds sets of IP addresses that are given as prefixes, and says
// who is in one.
//
// Every value is immutable once it was made, so it may be shared freely. What is
// asked takes time that grows with the logarithm of how many prefixes there are,
// and allocates nothing.
package cidr
