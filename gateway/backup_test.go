package gateway

import (
	"crypto/tls"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/bolt"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A gateway that starts from a restored backup has the same revision, the same etags, the
// same keys, and revisions to roll back to. A sealed backup opens only with the same key.
func TestARestoredGatewayIsTheSame(t *testing.T) {
	key, err := seal.ParseKey([]byte(strings.Repeat("a", 64)))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("not sealed", func(t *testing.T) { testRestoredGateway(t, nil) })
	t.Run("sealed", func(t *testing.T) { testRestoredGateway(t, key) })
}

func testRestoredGateway(t *testing.T, key *seal.Key) {
	sealed := func(o *Options) { o.SealKey = key }
	g, ca := start(t, "", sealed), certstest.NewCA(t)
	if got := g.Status().GetSealed(); got != (key != nil) {
		t.Errorf("GetStatus says sealed: %v", got)
	}
	front := ca.Server(t, "front.example")
	l := httpListener("https", "127.0.0.1:0")
	l.Tls = &adminv1.ServerTls{Certificates: []string{"front"}}
	g.put(inlineCertificate("front", front), plainUpstream("up", "127.0.0.1:1"), l)
	g.put(plainUpstream("up", "127.0.0.1:2"))
	backup, err := g.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	before := g.State()
	g.put(plainUpstream("up", "127.0.0.1:3")) // this write is not part of the backup

	dir := filepath.Join(t.TempDir(), "restored")
	if s, err := bolt.Restore(dir, backup, nil); err != nil || s.Revision != 2 {
		t.Fatalf("%+v, %v", s, err)
	}
	if key != nil {
		if other, err := Open(t.Context(), Options{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "--seal-key-file") {
			t.Errorf("started without the key: %v, %v", other, err)
		}
	}
	r := start(t, dir, sealed)
	same := func(a, b store.Resource) bool { return proto.Equal(a, b) }
	if r.State().Revision() != 2 || !slices.EqualFunc(r.State().All(), before.All(), same) {
		t.Errorf("revision %d:\n%v\nwant\n%v", r.State().Revision(), r.State().All(), before.All())
	}
	if r.InstanceID() == g.InstanceID() {
		t.Error("the restored gateway has the instance ID of the original")
	}
	conn, err := tls.Dial("tcp", r.address("https"), &tls.Config{RootCAs: ca.Pool(), ServerName: "front.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if !conn.ConnectionState().PeerCertificates[0].Equal(front.Leaf) {
		t.Error("the restored gateway presents a different certificate")
	}
	r.rollBack(1)
	if got := r.State().Get(adminv1.Kind_KIND_UPSTREAM, "up").(*adminv1.Upstream).GetEndpoints()[0].GetAddress(); got != "127.0.0.1:1" {
		t.Errorf("after a rollback: %s", got)
	}
}

// A gateway that starts from a backup with a pending revision rolls back that revision.
func TestARestoredGatewayRollsBackAPendingRevision(t *testing.T) {
	g := start(t, "")
	g.put(plainUpstream("up", "127.0.0.1:1"))
	g.apply(store.Edit{Puts: puts(plainUpstream("up", "127.0.0.1:2")), ConfirmWithin: ages})
	backup, err := g.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer backup.Close()
	dir := filepath.Join(t.TempDir(), "restored")
	if _, err := bolt.Restore(dir, backup, nil); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir)
	if got := r.State().Get(adminv1.Kind_KIND_UPSTREAM, "up").(*adminv1.Upstream).GetEndpoints()[0].GetAddress(); r.State().Revision() != 3 || got != "127.0.0.1:1" {
		t.Errorf("revision %d: %s", r.State().Revision(), got)
	}
}
