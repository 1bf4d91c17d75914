package snapshot

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// Material holds the parts of an edit that come from outside the desired state:
// the files that its resources name, and the keys and certificates parsed from
// files and messages. It is gathered before the writer's lock is taken, because
// reading a file can hang and decrypting a key can take seconds. From then on it
// is part of the edit.
type Material struct {
	certificates map[string]*certificateMaterial
	bundles      map[string]*bundleMaterial
	system       *systemMaterial // the system's roots; nil: not read

	deriving time.Duration // time spent decrypting keys
}

type certificateMaterial struct {
	msg    *adminv1.Certificate // the message that live was built from
	live   *certs.Certificate   // nil if found has faults
	digest Digest
	found  invalid.List // faults and warnings, by paths within msg
}

type bundleMaterial struct {
	msg    *adminv1.TrustBundle
	trust  *certs.TrustBundle
	digest Digest
	found  invalid.List
}

// systemMaterial holds the system's roots, or the error of reading them.
type systemMaterial struct {
	trust *certs.TrustBundle
	err   error
}

// Needs lists the missing material of a compile.
type Needs struct {
	Refs   []store.Ref
	System bool // the system's roots
}

// None reports whether no material is missing.
func (n Needs) None() bool { return len(n.Refs) == 0 && !n.System }

// need records that the material of a resource is missing.
func (j *job) need(ref store.Ref) { j.needs.Refs = append(j.needs.Refs, ref) }

// maxDeriving bounds the total time for decrypting the keys and archives of one
// edit. Each takes at most a second.
const maxDeriving = 10 * time.Second

// Gather reads and parses the files and keys that the edit needs on top of live, and
// those that an earlier compile found missing. It returns an error only if ctx ends
// first. Compile reports the faults of files and keys.
func (c Compiler) Gather(ctx context.Context, live *Snapshot, e store.Edit, also Needs) (*Material, error) {
	m := newMaterial()
	for _, p := range e.Puts {
		// If two puts name one resource, the draft takes the first and rejects the
		// second.
		if r := live.State().Complete(p.Resource); r != nil && !m.has(store.RefOf(r)) {
			c.gather(ctx, m, live, r)
		}
	}
	for _, ref := range e.Reread {
		if r := live.State().Get(ref.Kind, ref.Name); r != nil {
			c.gather(ctx, m, live, r)
		}
	}
	for _, p := range live.Problems() { // retry every resource that is down
		if r := live.State().Get(p.Ref.Kind, p.Ref.Name); r != nil && !m.has(p.Ref) {
			c.gather(ctx, m, live, r)
		}
	}
	for _, ref := range also.Refs {
		if r := live.State().Get(ref.Kind, ref.Name); r != nil && !m.has(ref) {
			c.gather(ctx, m, live, r)
		}
	}
	if also.System || e.RereadSystem && live.system != nil {
		m.system = c.readSystem(ctx)
	}
	return m, ctx.Err()
}

// gatherState reads and parses the files and keys that a stored state needs, on all
// processors.
func (c Compiler) gatherState(ctx context.Context, state *store.State) *Material {
	m := newMaterial()
	m.system = c.readSystem(ctx)
	all := slices.Concat(state.List(adminv1.Kind_KIND_TRUST_BUNDLE), state.List(adminv1.Kind_KIND_CERTIFICATE))
	workers := runtime.GOMAXPROCS(0)
	gathered := make([]*Material, workers)
	var wait sync.WaitGroup
	for i := range workers {
		gathered[i] = newMaterial()
		wait.Go(func() {
			for at := i; at < len(all); at += workers {
				gathered[i].deriving = 0 // earlier edits have passed the limit
				c.gather(ctx, gathered[i], new(Snapshot), all[at])
			}
		})
	}
	wait.Wait()
	for _, g := range gathered {
		maps.Copy(m.certificates, g.certificates)
		maps.Copy(m.bundles, g.bundles)
	}
	return m
}

func newMaterial() *Material {
	return &Material{certificates: map[string]*certificateMaterial{}, bundles: map[string]*bundleMaterial{}}
}

func (m *Material) has(ref store.Ref) bool {
	switch ref.Kind {
	case adminv1.Kind_KIND_CERTIFICATE:
		return m.certificates[ref.Name] != nil
	case adminv1.Kind_KIND_TRUST_BUNDLE:
		return m.bundles[ref.Name] != nil
	}
	return false
}

// FileDigest returns the digest of the files that were gathered for a resource. A
// file that cannot be read contributes its error to the digest. It is zero if the
// resource has no files, or if they were not gathered.
func (m *Material) FileDigest(ref store.Ref) Digest {
	switch ref.Kind {
	case adminv1.Kind_KIND_CERTIFICATE:
		if c := m.certificates[ref.Name]; c != nil {
			return c.digest
		}
	case adminv1.Kind_KIND_TRUST_BUNDLE:
		if b := m.bundles[ref.Name]; b != nil {
			return b.digest
		}
	}
	return Digest{}
}

// gather reads and parses the files and keys of one resource, unless they are
// already live.
func (c Compiler) gather(ctx context.Context, m *Material, live *Snapshot, r store.Resource) {
	if ctx.Err() != nil {
		return
	}
	switch r := r.(type) {
	case *adminv1.Certificate:
		prev := live.certificates.Get(r.GetName())
		if files := filesOf(r); !prev.reusable(r) || len(files) > 0 {
			m.certificates[r.GetName()] = c.gatherCertificate(ctx, m, prev, r, files)
		}
	case *adminv1.TrustBundle:
		prev := live.bundles.Get(r.GetName())
		if files := filesOf(r); !prev.reusable(r) || len(files) > 0 || r.GetSystem() != nil {
			m.bundles[r.GetName()] = c.gatherBundle(ctx, prev, r, files)
		}
	}
}

// A reading collects the faults of one resource's files and keys.
type reading struct{ invalid.List }

func (c Compiler) gatherCertificate(ctx context.Context, m *Material, prev *certificate, msg *adminv1.Certificate, files []file) *certificateMaterial {
	s, out := new(reading), &certificateMaterial{msg: msg}
	var read map[invalid.Path][]byte
	read, out.digest = s.take(files, c.readFiles(ctx, files))
	src, at := s.certificateSource(msg, read)
	switch {
	case s.Len() > 0:
	case prev.reusable(msg) && out.digest == prev.digest:
		out.live = prev.live // the files were read again and have not changed
		for _, w := range prev.notes.warnings {
			s.AddWarning(w)
		}
	case len(src.Passphrase) > 0 && m.deriving > maxDeriving:
		s.Add(at[passphraseField], "decrypting the keys of this request takes longer than %v: apply the certificates in several requests, or with fewer rounds of key derivation", maxDeriving)
	default:
		began := time.Now()
		live, err := certs.NewCertificate(src)
		if len(src.Passphrase) > 0 {
			m.deriving += time.Since(began)
		}
		if err != nil {
			s.addCertificateFaults(at, err)
			break
		}
		out.live = live
		info := live.Info()
		for i, w := range info.Warnings {
			s.AddWarning(invalid.Warning{Field: at[chainField], Message: w, Code: warnCertificate, Finding: string(info.Findings[i])})
		}
	}
	out.found = s.List
	return out
}

func (c Compiler) gatherBundle(ctx context.Context, prev *bundle, msg *adminv1.TrustBundle, files []file) *bundleMaterial {
	s, out := new(reading), &bundleMaterial{msg: msg}
	var read map[invalid.Path][]byte
	read, out.digest = s.take(files, c.readFiles(ctx, files))
	switch {
	case msg.GetSystem() == nil:
		out.trust = s.trust(msg, read)
	case s.Len() == 0:
		out.trust = c.systemBundle(ctx, s, msg, read)
	}
	if out.trust != nil && prev.reusable(msg) && prev.trust.Equal(out.trust) {
		out.trust = prev.trust
	}
	out.found = s.List
	return out
}

// systemBundle parses a bundle of the system's roots, which are files too.
func (c Compiler) systemBundle(ctx context.Context, s *reading, msg *adminv1.TrustBundle, read map[invalid.Path][]byte) *certs.TrustBundle {
	separate := new(reading) // separate from s, because a read that hangs may write later
	var trust *certs.TrustBundle
	if err := c.block(ctx, func() { trust = separate.trust(msg, read) }); err != nil {
		s.Add("system", "cannot be read: %v", err)
		return nil
	}
	s.Merge(&separate.List)
	return trust
}

func (c Compiler) readSystem(ctx context.Context) *systemMaterial {
	read := new(systemMaterial)
	if err := c.block(ctx, func() { read.trust, read.err = certs.SystemTrustBundle() }); err != nil {
		return &systemMaterial{err: fmt.Errorf("the system's roots cannot be read: %w", err)}
	}
	return read
}

// readFiles reads a consistent view of the files.
func (c Compiler) readFiles(ctx context.Context, files []file) []fileroot.File {
	if len(files) == 0 {
		return nil
	}
	var read []fileroot.File
	if err := c.block(ctx, func() { read = c.FileRoots.ReadAll(paths(files)...) }); err != nil {
		failed := make([]fileroot.File, len(files))
		for i := range failed {
			failed[i].Err = err
		}
		return failed
	}
	return read
}

// block runs f, which may hang. After an error, f may still be running, so the
// caller must not read anything that f writes.
func (c Compiler) block(ctx context.Context, f func()) error {
	if c.Blocking == nil {
		f()
		return nil
	}
	err := c.Blocking(ctx, f)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("reading takes too long; the file system may hang")
	}
	return err
}
