// Package livestate passes on what a process has learned from traffic and health checks,
// so that an upgrade does not begin with forgotten failures and full rate limits.
//
// The live objects own their states. This package only collects them, encodes them for
// another version of the program, and gives each to the object with the same settings.
package livestate
