// Command image builds the container image of a release, without a container engine: an
// OCI layout in a tar file, for all architectures. The same input makes the same bytes.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

func main() {
	var r release
	var epoch int64
	out := flag.String("out", "", "`file` to write")
	flag.StringVar(&r.version, "version", "", "`version` of the program")
	flag.StringVar(&r.commit, "commit", "", "`commit` of the source")
	flag.Int64Var(&epoch, "epoch", 0, "`time` of every file and of the image, in seconds since 1970")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: image [flags] ARCHITECTURE=BINARY …")
		flag.PrintDefaults()
	}
	flag.Parse()
	r.time = time.Unix(epoch, 0).UTC()
	if err := r.write(*out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// A release holds the properties that the images of all architectures share.
type release struct {
	version, commit string
	time            time.Time
}

// write writes the image for all binaries, each given as ARCHITECTURE=BINARY.
func (r *release) write(out string, binaries []string) error {
	if out == "" || len(binaries) == 0 {
		return fmt.Errorf("--out and at least one ARCHITECTURE=BINARY are needed")
	}
	l := newLayout()
	images := index{SchemaVersion: 2, MediaType: mediaTypeIndex}
	for _, b := range binaries {
		arch, path, ok := strings.Cut(b, "=")
		if !ok {
			return fmt.Errorf("%q must be ARCHITECTURE=BINARY", b)
		}
		binary, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		d, err := r.image(l, arch, binary)
		if err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		images.Manifests = append(images.Manifests, d)
	}
	d, err := l.addJSON(mediaTypeIndex, images)
	if err != nil {
		return err
	}
	// The layout names one index, which lists the images of the architectures. Tools that
	// copy images expect this form.
	d.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": "drawbridge:" + r.version,           // read by podman and skopeo
		"io.containerd.image.name":          "localhost/drawbridge:" + r.version, // read by containerd and Docker
	}
	text, err := l.archive(r.time, index{SchemaVersion: 2, MediaType: mediaTypeIndex, Manifests: []descriptor{d}})
	if err != nil {
		return err
	}
	return os.WriteFile(out, text, 0o644)
}
