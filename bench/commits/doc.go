// Package commits measures what the history and sealing add to the time of a commit.
//
// A run commits the same change to three stores in turn, each in a directory of its own:
// one without a history, one with, and one that is sealed, too.
package commits
