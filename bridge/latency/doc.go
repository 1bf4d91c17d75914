// Package latency counts how long things take, in buckets that are the same for
// all.
//
// Whoever times something observes it, at the cost of two atomic additions;
// whoever publishes reads all buckets now and then. Nothing is ever reset.
package latency
