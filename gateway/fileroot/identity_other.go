//go:build !linux

package fileroot

import "io/fs"

// identityOf knows no more than fs.FileInfo: size and modification time tell files
// apart.
func identityOf(fs.FileInfo) identity { return identity{} }
