package gateway

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// The gateway must not serve a stored resource of a newer version without the
// fields that it does not know.
func TestAStoredResourceWithUnknownFieldsIsDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	plain := func(name string) *adminv1.Upstream {
		return plainUpstream(name, "127.0.0.1:1")
	}
	newer := plain("newer")
	newer.Endpoints[0].ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 900, protowire.VarintType), 1))
	s, err := bolt.Open(dir, bolt.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var bad invalid.List
	draft := s.State().Edit(store.Edit{Puts: puts(newer, plain("old"))}, &bad)
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}
	record := revisions.NewRecord(draft, store.Edit{}, time.Now(), func(store.Ref) string { return "" })
	if err := s.Commit(draft, record); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	g := start(t, dir)
	problems := g.Status().GetProblems()
	if len(problems) != 1 || problems[0].GetKind() != adminv1.Kind_KIND_UPSTREAM || problems[0].GetName() != "newer" ||
		!strings.Contains(problems[0].GetReason(), "endpoints[0].900") {
		t.Errorf("problems: %v", problems)
	}
	// The resource stays down while others change, and comes up once it is put
	// without the unknown fields.
	g.put(plain("third"))
	if p := g.Status().GetProblems(); len(p) != 1 {
		t.Errorf("problems after another write: %v", p)
	}
	g.put(plain("newer"))
	if p := g.Status().GetProblems(); len(p) != 0 {
		t.Errorf("problems in the end: %v", p)
	}
}
