package fileroot

import (
	"encoding/binary"
	"hash/maphash"
	"io/fs"
	"os"
)

// A look describes the file at a name, without following a symlink.
type look struct {
	mode          fs.FileMode
	device, inode uint64
	size          int64
	modified      int64 // time of the last change of the content, in ns
	changed       int64 // time of the last change of the content or attributes, in ns

	target string // the target of a symlink
	err    error  // why the look failed; the fields above are then not set
}

func lookAt(name string) look {
	l := stat(name)
	if l.err == nil && l.mode&fs.ModeSymlink != 0 {
		l.target, l.err = os.Readlink(name)
	}
	return l
}

// addTo adds the attributes that distinguish the file at the name from a file that
// replaces it. A directory's times change with every file in it, so only its identity
// and permissions count.
func (l look) addTo(sum *maphash.Hash, name string) {
	sum.WriteString(name)
	if l.err != nil {
		sum.WriteByte(0)
		sum.WriteString(cause(l.err).Error())
	}
	numbers := [...]uint64{l.device, l.inode, uint64(l.mode), 0, 0, 0}
	if !l.mode.IsDir() {
		numbers[3], numbers[4], numbers[5] = uint64(l.size), uint64(l.modified), uint64(l.changed)
	}
	var text [8 * len(numbers)]byte
	for i, n := range numbers {
		binary.LittleEndian.PutUint64(text[8*i:], n)
	}
	sum.Write(text[:])
	sum.WriteString(l.target)
	sum.WriteByte(0)
}
