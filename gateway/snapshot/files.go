package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/ordered"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A Digest identifies the content of all files of a resource. The zero value means
// no files.
type Digest [sha256.Size]byte

// Key returns the digest's bytes as a string, or "" for the zero value.
func (d Digest) Key() string {
	if d == (Digest{}) {
		return ""
	}
	return string(d[:])
}

// Files returns every path in the desired state, with the resources that use it
// ordered by kind and name.
func (s *Snapshot) Files() map[string][]store.Ref {
	out := map[string][]store.Ref{}
	for _, k := range []adminv1.Kind{adminv1.Kind_KIND_TRUST_BUNDLE, adminv1.Kind_KIND_CERTIFICATE} {
		for _, r := range s.State().List(k) {
			for _, f := range filesOf(r) {
				if refs := out[f.path]; len(refs) == 0 || refs[len(refs)-1] != store.RefOf(r) {
					out[f.path] = append(refs, store.RefOf(r))
				}
			}
		}
	}
	return out
}

// FilesChanged reports whether Files differs between prev and s. Its cost is
// proportional to the difference of the two states.
func (s *Snapshot) FilesChanged(prev *Snapshot) bool {
	return slices.ContainsFunc(s.State().Changed(prev.State()), func(ref store.Ref) bool {
		return !slices.Equal(FilePaths(prev.State().Get(ref.Kind, ref.Name)), FilePaths(s.State().Get(ref.Kind, ref.Name)))
	})
}

// FileDigest returns the digest of the files that the live resource was built from.
// It is zero if the resource is down or uses no files.
func (s *Snapshot) FileDigest(ref store.Ref) Digest {
	switch ref.Kind {
	case adminv1.Kind_KIND_CERTIFICATE:
		if c := s.certificates.Get(ref.Name); c != nil && c.live != nil {
			return c.digest
		}
	case adminv1.Kind_KIND_TRUST_BUNDLE:
		if b := s.bundles.Get(ref.Name); b != nil && b.trust != nil {
			return b.digest
		}
	}
	return Digest{}
}

// FilePaths returns the paths of the files that the resource uses.
func FilePaths(r store.Resource) []string { return paths(filesOf(r)) }

// A file is a field that holds a path.
type file struct {
	at   invalid.Path
	path string
}

// filesOf returns the files that the resource uses.
func filesOf(r store.Resource) []file {
	var out []file
	add := func(at invalid.Path, path string) { out = append(out, file{at, path}) }
	switch r := r.(type) {
	case *adminv1.Certificate:
		f := r.GetFiles()
		if f == nil {
			break
		}
		add("files.certificate_path", f.GetCertificatePath())
		if f.GetPrivateKeyPath() != "" {
			add("files.private_key_path", f.GetPrivateKeyPath())
		}
		if f.GetPassphrasePath() != "" {
			add("files.passphrase_path", f.GetPassphrasePath())
		}
	case *adminv1.TrustBundle:
		if src, ok := r.GetSource().(*adminv1.TrustBundle_File); ok {
			add("file", src.File)
		}
		for i, c := range r.GetCrls() {
			if src, ok := c.GetSource().(*adminv1.Crl_File); ok {
				add(crlAt(i).Field("file"), src.File)
			}
		}
	}
	return out
}

func crlAt(i int) invalid.Path { return invalid.Path("crls").Index(i) }

func paths(files []file) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.path
	}
	return out
}

// take returns the contents of files that were read, by field. Its faults name the
// field and reveal no content.
func (s *reading) take(files []file, read []fileroot.File) (map[invalid.Path][]byte, Digest) {
	contents := make(map[invalid.Path][]byte, len(files))
	for i, f := range files {
		err := read[i].Err
		switch {
		case f.path == "":
			s.Add(f.at, "must be set")
		case strings.ContainsFunc(f.path, unicode.IsControl): // probably inline PEM in the wrong field
			s.Add(f.at, "has line breaks or other control characters; it must be the path of a file")
		case !filepath.IsAbs(f.path):
			s.Add(f.at, "is %.200q; it must be an absolute path on the gateway's machine", f.path)
		case errors.Is(err, fileroot.ErrOutside):
			s.Add(f.at, "is not a file below the directories that the gateway may read (--file-root)")
		case err != nil:
			s.Add(f.at, "%.200s cannot be read: %v", f.path, err)
		}
		contents[f.at] = read[i].Content
	}
	return contents, digest(read)
}

func digest(files []fileroot.File) Digest {
	if len(files) == 0 {
		return Digest{}
	}
	h := sha256.New()
	for _, f := range files {
		if f.Err != nil {
			fmt.Fprintf(h, "error %q ", f.Err.Error())
			continue
		}
		fmt.Fprintf(h, "%d:", len(f.Content))
		h.Write(f.Content)
	}
	return Digest(h.Sum(nil))
}

// Reloaded returns the resources whose messages are equal to prev's but whose files
// have changed.
func (s *Snapshot) Reloaded(prev *Snapshot) []store.Ref {
	var refs []store.Ref
	for name, d := range ordered.Differ(prev.bundles, s.bundles) {
		if p, b := d[0], d[1]; p != nil && b != nil && p.trust != b.trust && sameInputs(p.msg, b.msg) {
			refs = append(refs, store.Ref{Kind: adminv1.Kind_KIND_TRUST_BUNDLE, Name: name})
		}
	}
	for name, d := range ordered.Differ(prev.certificates, s.certificates) {
		if p, c := d[0], d[1]; p != nil && c != nil && p.live != c.live && sameInputs(p.msg, c.msg) {
			refs = append(refs, store.Ref{Kind: adminv1.Kind_KIND_CERTIFICATE, Name: name})
		}
	}
	slices.SortFunc(refs, store.Ref.Compare)
	return refs
}
