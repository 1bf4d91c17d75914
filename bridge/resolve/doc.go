// Package resolve turns names into addresses: once, to connect to the first that
// answers, and again and again, with how long each answer is good for.
//
// It asks by package net's own resolver, so that search domains, /etc/hosts, EDNS
// and TCP are what they are everywhere else, and reads the responses that pass by
// for what that does not tell. What comes from the network is bounded before it
// is kept. A Name may be used by any number of goroutines; it has none of its own.
package resolve
