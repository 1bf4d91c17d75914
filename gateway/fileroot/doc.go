// Package fileroot reads files, but only below the directories that the operator has
// configured.
//
// Symlinks are resolved; the target must lie below a file root. For any other path the
// error reveals nothing: neither its content nor whether it exists. Roots are values;
// the package keeps no file open.
package fileroot
