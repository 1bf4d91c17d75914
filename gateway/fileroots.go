package gateway

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
)

// fileRoots returns the directories below which files may be read.
func fileRoots(o Options) (fileroot.Roots, error) {
	dirs := o.FileRoots
	if dirs == nil {
		dirs = []string{o.DataDir, "/etc/drawbridge"}
	}
	var roots fileroot.Roots
	for _, dir := range dirs {
		if dir == "" {
			return nil, errors.New("a file root is empty: it must be a directory")
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return nil, fmt.Errorf("file root %s: %w", dir, err)
		}
		roots = append(roots, abs)
	}
	return roots, nil
}
