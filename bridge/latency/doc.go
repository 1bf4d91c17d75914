// Package latency counts durations in buckets that are the same for every
// histogram.
//
// A caller adds a duration to a Histogram with two atomic additions, and owns
// nothing. A publisher reads all buckets periodically. Counts are never reset.
package latency
