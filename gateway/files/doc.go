// Package files reloads changed files of certificates, trust bundles and revocation
// lists.
//
// A Watcher owns the file watches and applies changed files as an ordinary edit. Every
// file system call runs in a Pool, so that a hanging file system delays only its own
// files.
package files
