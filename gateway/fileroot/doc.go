// Package fileroot reads files, but only below directories that whoever runs
// the process has named.
//
// A path may lead through symbolic links; what counts is where it ends. Of a
// path that ends elsewhere nothing is told: not what is there, nor whether
// anything is.
package fileroot
