package gateway

import (
	"io"

	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/snapshot"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
)

// History answers questions about earlier revisions.
func (g *Gateway) History() *revisions.History { return g.history }

// Backup returns a copy of the store as of one revision, with all private keys. The caller
// closes it. Writes do not wait for it.
func (g *Gateway) Backup() (io.ReadCloser, error) { return g.backup() }

// Diff returns the resources that differ between two revisions, and the second one; nil
// stands for the live one. The error is an *invalid.Error.
func (g *Gateway) Diff(from int64, to *int64) ([]revisions.Difference, int64, error) {
	live := g.live.Load()
	upTo := live.State().Revision()
	if to != nil {
		upTo = *to
	}
	all, err := g.history.Diff(live.State(), fileKeys(live), from, upTo)
	return all, upTo, err
}

// RollbackEdit returns an edit that rolls back to a revision. Its ExpectedRevision is the
// live revision. The error is an *invalid.Error.
func (g *Gateway) RollbackEdit(to int64) (store.Edit, error) {
	return g.history.Rollback(g.State(), to)
}

// fileKeys returns the digests of the files that the resources of a snapshot were built
// from, as strings.
func fileKeys(s *snapshot.Snapshot) func(store.Ref) string {
	return func(ref store.Ref) string { return s.FileDigest(ref).Key() }
}
