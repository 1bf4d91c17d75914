// Package commits measures how much longer a commit takes with a history and
// sealing.
//
// A run commits the same change to three stores in turn, each in its own directory:
// without a history, with a history, and with a history and sealing.
package commits
