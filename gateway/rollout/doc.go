// Package rollout judges revisions that some gateways of a fleet, the canaries, run first.
//
// A Meter counts the traffic of one gateway. Begin chooses the canaries, and a Judge compares
// what all gateways report and decides how a rollout ends. The package neither reads nor
// writes the fleet's state: the caller does.
package rollout
