package fileroot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// For any path and any symlinks on it, no file outside the root is read, traced
// or reported.
func FuzzAPathLeadsToNothingOutside(f *testing.F) {
	dir, err := filepath.EvalSymlinks(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	write(f, filepath.Join(root, "sub", "in.pem"), "inside")
	secret := filepath.Join(dir, "secret")
	write(f, filepath.Join(secret, "key"), "outside")
	for name, target := range map[string]string{"up": "..", "abs": secret, "in": "sub/in.pem", "loop": "loop", "self": root} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			f.Fatal(err)
		}
	}
	for _, p := range []string{"/sub/in.pem", "/in", "/up/secret/key", "/abs/key", "/abs/none", "/../secret/key", "/sub/../../secret/key",
		"/self/self/up/root/in", "/loop", "/sub/../abs/../up/secret/key", "-beside", "", "/", "//", "/./in", "/\x00", "/up/up/up/up/etc/passwd"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		roots := Roots{root}
		got := roots.ReadAll(root + path)[0]
		if got.Err == nil && string(got.Content) != "inside" {
			t.Errorf("%q: %q", path, got.Content)
		}
		if got.Err != nil && strings.Contains(got.Err.Error(), dir) {
			t.Errorf("%q: the error tells a path: %v", path, got.Err)
		}
		for _, step := range roots.Survey().Steps(root + path) {
			if step != root && !strings.HasPrefix(step, root+"/") {
				t.Errorf("%q is traced to %s", path, step)
			}
		}
	})
}
