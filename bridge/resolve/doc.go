// Package resolve turns names into addresses: once, to connect to the first
// address that answers, or repeatedly, with the lifetime of each answer.
//
// It uses the resolver of package net, so that search domains, /etc/hosts, EDNS
// and TCP work as everywhere else, and extracts from the responses the data
// that package net omits. Data from the network is bounded before it is kept.
// The caller owns a Name, which starts no goroutines and may be used by
// several.
package resolve
