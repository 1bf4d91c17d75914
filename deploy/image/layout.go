package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Media types of the OCI image specification.
const (
	mediaTypeIndex    = "application/vnd.oci.image.index.v1+json"
	mediaTypeManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaTypeConfig   = "application/vnd.oci.image.config.v1+json"
	mediaTypeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// A descriptor points to a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// An index lists images.
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []descriptor `json:"manifests"`
}

// A manifest lists the parts of an image for one platform.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
}

// A layout collects blobs by their digests.
type layout struct{ blobs map[string][]byte }

func newLayout() *layout { return &layout{make(map[string][]byte)} }

// digest returns the digest that names content in a layout.
func digest(content []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(content)) }

func (l *layout) add(mediaType string, content []byte) descriptor {
	d := digest(content)
	l.blobs[d] = content
	return descriptor{MediaType: mediaType, Digest: d, Size: len(content)}
}

func (l *layout) addJSON(mediaType string, v any) (descriptor, error) {
	content, err := json.Marshal(v)
	return l.add(mediaType, content), err
}

// archive returns the layout as a tar file.
func (l *layout) archive(t time.Time, top index) ([]byte, error) {
	list, err := json.Marshal(top)
	if err != nil {
		return nil, err
	}
	entries := []entry{
		{name: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, content: list},
		{name: "blobs", mode: 0o755},
		{name: "blobs/sha256", mode: 0o755},
	}
	for _, d := range slices.Sorted(maps.Keys(l.blobs)) {
		entries = append(entries, entry{name: "blobs/" + strings.Replace(d, ":", "/", 1), mode: 0o644, content: l.blobs[d]})
	}
	return archive(t, entries...)
}

// An entry is a file or, without content, a directory.
type entry struct {
	name    string
	mode    int64
	owner   int
	content []byte
}

// archive returns a tar file of entries, which have the time t.
func archive(t time.Time, entries ...entry) ([]byte, error) {
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.content)), ModTime: t, Typeflag: tar.TypeReg, Format: tar.FormatPAX}
		if e.content == nil {
			h.Name, h.Typeflag = e.name+"/", tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return text.Bytes(), err
}
