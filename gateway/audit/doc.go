// Package audit records the actions of callers, as lines of JSON in a file. The first
// line of a write is on disk before the write begins. All other lines are written in the
// background.
package audit
