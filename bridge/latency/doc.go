// Package latency counts durations in buckets that are the same for every
// histogram.
//
// A caller that measures owns nothing: it adds to a Histogram with two atomic
// additions. A publisher reads all buckets periodically. Counts are never
// reset.
package latency
