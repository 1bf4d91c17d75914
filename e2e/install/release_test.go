package install

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A second build, from a copy of the source in another directory, makes identical
// files.
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

	image := filepath.Join(t.TempDir(), "image.tar")
	args := []string{"-out", image, "-version", os.Getenv("VERSION"), "-commit", os.Getenv("COMMIT"), "-epoch", os.Getenv("SOURCE_DATE_EPOCH")}
	for _, arch := range []string{"amd64", "arm64"} {
		from := released(t, "drawbridge-linux-"+arch)
		if arch == deb {
			from = binary
		}
		args = append(args, arch+"="+from)
	}
	run(t, made(t, "IMAGE"), args...)
	same(t, released(t, "drawbridge-image.tar"), image)
}

// SHA256SUMS names every file of the release.
func TestChecksumsOfTheRelease(t *testing.T) {
	dir := made(t, "RELEASE")
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = dir
	checked := runCmd(t, check)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 10 {
		t.Fatalf("the release has %d files (%v)", len(files), err)
	}
	for _, f := range files {
		if f.Name() != "SHA256SUMS" && !strings.Contains(checked, f.Name()+": OK\n") {
			t.Errorf("SHA256SUMS lacks %s", f.Name())
		}
	}
}

// The list of components of a binary has the version of the program and every module that
// is linked into the binary.
func TestComponentsOfTheRelease(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		binary := released(t, "drawbridge-linux-"+arch)
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(binary + ".cdx.json")
		if err != nil {
			t.Fatal(err)
		}
		type component struct{ Name, Version string }
		var list struct {
			BOMFormat  string `json:"bomFormat"`
			Metadata   struct{ Component component }
			Components []component
		}
		if err := json.Unmarshal(data, &list); err != nil {
			t.Fatal(err)
		}
		if list.BOMFormat != "CycloneDX" || list.Metadata.Component.Version != os.Getenv("VERSION") {
			t.Errorf("%s: %s of %v", arch, list.BOMFormat, list.Metadata.Component)
		}
		if len(info.Deps) < 10 {
			t.Fatalf("%s has %d modules", binary, len(info.Deps))
		}
		for _, m := range info.Deps {
			if !slices.Contains(list.Components, component{m.Path, m.Version}) {
				t.Errorf("%s: the list lacks %s %s", arch, m.Path, m.Version)
			}
		}
		if !slices.ContainsFunc(list.Components, func(c component) bool { return c.Name == "std" }) {
			t.Errorf("%s: the list lacks the standard library", arch)
		}
	}
}

// duplicate copies a file with its mode, but not its time.
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
