// Package commits measures what the history and sealing add to the time of a commit.
//
// A run commits the same change to three stores in turn, each in its own directory: one
// without a history, one with a history, and one that is also sealed.
package commits
