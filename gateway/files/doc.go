// Package files turns watched files into edits: it notices that files of
// certificates, trust bundles and revocation lists may have changed, reads them,
// and applies those that have, as any other edit is applied.
//
// Whatever touches a file system runs in a Pool, so that one that hangs holds up
// nothing but the files on it.
package files
