package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A second build, from a copy of the source in another directory, makes the same bytes.
func TestTheReleaseIsReproducible(t *testing.T) {
	deb, rpm := architecture(t)
	clone := t.TempDir()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = "../.."
	names, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		duplicate(t, filepath.Join("../..", name), filepath.Join(clone, name))
	}
	binary := makeBinary(t, clone, "VERSION="+os.Getenv("VERSION"), "COMMIT="+os.Getenv("COMMIT"))
	same(t, released(t, "drawbridge-linux-"+deb), binary)

	files, err := filepath.Glob("../../bin/packages/*")
	if err != nil {
		t.Fatal(err)
	}
	manual, err := filepath.Glob("../../bin/packages/man/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, manual...) {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			duplicate(t, file, filepath.Join(clone, strings.TrimPrefix(file, "../../")))
		}
	}
	version := os.Getenv("PACKAGE_VERSION")
	same(t, released(t, "*_"+deb+".deb"), buildIn(t, clone, t.TempDir(), "deb", version, binary))
	same(t, released(t, "*."+rpm+".rpm"), buildIn(t, clone, t.TempDir(), "rpm", version, binary))
}

// duplicate copies a file with its mode. Its time becomes the present one.
func duplicate(t testing.TB, from, to string) {
	t.Helper()
	info, err := os.Lstat(from)
	if os.IsNotExist(err) {
		return // deleted and not committed
	}
	if err != nil {
		t.Fatal(err)
	}
	if !info.Mode().IsRegular() {
		t.Fatalf("%s is not a regular file", from)
	}
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, info.Mode().Perm())} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// same fails the test unless two files have the same content.
func same(t testing.TB, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(x, y) {
		t.Errorf("%s of %d bytes differs from %s of %d bytes", a, len(x), b, len(y))
	}
}
