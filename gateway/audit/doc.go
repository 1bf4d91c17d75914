// Package audit records who did what, as lines of JSON in a file. The line of a write is
// on disk before the write is made; everything else is written in the background.
package audit
