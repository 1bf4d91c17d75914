package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// content returns the state without output-only fields, as text.
func content(s *store.State) string {
	var b strings.Builder
	for _, r := range s.All() {
		fmt.Fprintln(&b, store.RefOf(r), store.WithoutOutput(r))
	}
	return b.String()
}

// rollBack rolls back to a revision.
func (g *testGateway) rollBack(to int64) *store.Result {
	g.t.Helper()
	e, err := g.RollbackEdit(to)
	if err != nil {
		g.t.Fatal(err)
	}
	return g.apply(e)
}

// A rollback to any stored revision, after any sequence of edits, rollbacks and
// restarts, restores exactly its resources.
func TestARollbackRestoresExactlyTheResourcesOfARevision(t *testing.T) {
	const kept = 20
	limit := func(o *Options) { o.History = kept }
	g := start(t, "", limit)
	random := rand.New(rand.NewPCG(16, 1))
	ca := certstest.NewCA(t)
	issued := []*adminv1.Certificate{}
	for i := range 3 {
		i := ca.Client(t, fmt.Sprint("client", i))
		issued = append(issued, &adminv1.Certificate{Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
			CertificateChain: string(i.ChainPEM), PrivateKey: string(i.KeyPEM)}}})
	}
	states := map[int64]string{0: content(g.State())}
	for step := range 150 {
		switch n := random.IntN(20); {
		case n == 0:
			g.stop()
			g = start(t, g.dir, limit)
		case n < 4 && g.State().Revision() > 0:
			live := g.State().Revision()
			to := max(live-int64(random.IntN(kept+1)), 0)
			before := g.State()
			result := g.rollBack(to)
			if got := content(g.State()); got != states[to] {
				t.Fatalf("step %d: back from revision %d to %d:\n%s\nwant\n%s", step, live, to, got, states[to])
			}
			if content(before) == states[to] && result.Revision != live {
				t.Errorf("step %d: a rollback that changes nothing made revision %d", step, result.Revision)
			}
		default:
			var e store.Edit
			seen := map[store.Ref]bool{}
			for range 1 + random.IntN(4) {
				name := fmt.Sprint("r", random.IntN(5))
				var r store.Resource = plainUpstream(name, fmt.Sprintf("127.0.0.1:%d", 1+random.IntN(3)))
				if random.IntN(3) == 0 {
					c := store.WithoutOutput(issued[random.IntN(len(issued))]).(*adminv1.Certificate)
					c.Name = name
					r = c
				}
				if ref := store.RefOf(r); seen[ref] {
					continue
				} else if seen[ref] = true; random.IntN(4) == 0 && g.State().Get(ref.Kind, ref.Name) != nil {
					e.Deletes = append(e.Deletes, store.Delete{Kind: ref.Kind, Name: ref.Name})
					continue
				}
				e.Puts = append(e.Puts, puts(r)...)
			}
			g.apply(e)
		}
		states[g.State().Revision()] = content(g.State())
	}
	if g.State().Revision() < kept+2 {
		t.Fatalf("only %d revisions", g.State().Revision())
	}
	if _, err := g.RollbackEdit(g.State().Revision() - kept - 1); err == nil || !strings.Contains(err.Error(), "oldest one stored is") {
		t.Errorf("a revision whose record is no longer stored: %v", err)
	}
	if _, err := g.RollbackEdit(g.State().Revision() + 1); err == nil {
		t.Error("a rollback to a later revision")
	}
}

// The store does not hold watched files. A rollback warns if their content has
// changed.
func TestARollbackWarnsOfFilesThatHaveChanged(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t)
	first, second := ca.Client(t, "first"), ca.Client(t, "second")
	chain, key := writeFile(t, filepath.Join(dir, "c.pem"), first.ChainPEM), writeFile(t, filepath.Join(dir, "k.pem"), first.KeyPEM)
	g := start(t, "")
	g.put(&adminv1.Certificate{Name: "client", Labels: map[string]string{"team": "a"}, Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{
		CertificatePath: chain, PrivateKeyPath: key}}})
	g.put(plainUpstream("other", "127.0.0.1:1"))
	g.put(&adminv1.Certificate{Name: "client", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{
		CertificatePath: chain, PrivateKeyPath: key}}})
	if r := g.rollBack(2); len(r.Warnings) > 0 {
		t.Errorf("nothing has changed: %v", r.Warnings)
	}
	writeFile(t, chain, second.ChainPEM)
	writeFile(t, key, second.KeyPEM)
	eventually(t, "the changed files are loaded", func() bool { return g.State().Revision() == 5 })

	r := g.rollBack(1)
	if len(r.Warnings) != 1 || r.Warnings[0].Code != "FILE_CHANGED" || !strings.Contains(r.Warnings[0].Message, "since revision 1") {
		t.Errorf("%v", r.Warnings)
	}
	if g.State().Get(adminv1.Kind_KIND_UPSTREAM, "other") != nil || g.State().Get(adminv1.Kind_KIND_CERTIFICATE, "client").GetLabels()["team"] != "a" {
		t.Errorf("%s", content(g.State()))
	}
	// The two revisions also differ in their files.
	to := int64(5)
	if all, _, err := g.Diff(4, &to); err != nil || len(all) != 1 || all[0].Ref.Name != "client" {
		t.Errorf("%v, %v", all, err)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	e, err := g.RollbackEdit(4)
	if err != nil {
		t.Fatal(err)
	}
	var bad *invalid.Error
	if _, err := g.Apply(context.Background(), e); !errors.As(err, &bad) || !strings.Contains(err.Error(), "k.pem cannot be read") {
		t.Errorf("a rollback to deleted files: %v", err)
	}
}

func TestARevisionRecordsItsCallerAndComment(t *testing.T) {
	dir := t.TempDir()
	ca := certstest.NewCA(t)
	bundle := writeFile(t, filepath.Join(dir, "ca.pem"), ca.TrustPEM())
	g := start(t, "")
	g.apply(store.Edit{Puts: puts(plainUpstream("up", "127.0.0.1:1"), &adminv1.TrustBundle{Name: "ca", Source: &adminv1.TrustBundle_File{File: bundle}}),
		Comment: "first", Origin: store.Origin{Principal: "uid:7", Transport: adminv1.Transport_TRANSPORT_UNIX, Method: "/x/Apply"}})
	r, err := g.History().Revision(1)
	if err != nil || r.GetPrincipal() != "uid:7" || r.GetTransport() != adminv1.Transport_TRANSPORT_UNIX || r.GetMethod() != "/x/Apply" ||
		r.GetComment() != "first" || r.GetChangeCount() != 2 || len(r.GetChanges()) != 2 || r.RollbackTo != nil || r.GetCommitTime().AsTime().Before(g.started) {
		t.Errorf("%v, %v", r, err)
	}
	other := certstest.NewCA(t)
	writeFile(t, bundle, bytes.Join([][]byte{ca.TrustPEM(), other.TrustPEM()}, nil))
	eventually(t, "the file is live", func() bool { return g.State().Revision() == 2 })
	r, err = g.History().Revision(2)
	if err != nil || r.GetPrincipal() != "gateway" || r.GetTransport() != adminv1.Transport_TRANSPORT_INTERNAL || r.GetMethod() != "file" {
		t.Errorf("%v, %v", r, err)
	}
	g.rollBack(0)
	if r, err = g.History().Revision(3); err != nil || r.RollbackTo == nil || r.GetRollbackTo() != 0 {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := g.History().Revision(4); err == nil {
		t.Error("a revision that does not exist")
	}
}
