// Package ops serves health, readiness, metrics and profiles to operators, over
// plain HTTP.
//
// A Server owns its socket and its connections, whose number is bounded.
package ops
