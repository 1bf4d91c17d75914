package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/revisions"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/etcd/etcdtest"
	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sealKey(t testing.TB, digit string) *seal.Key {
	t.Helper()
	k, err := seal.ParseKey([]byte(strings.Repeat(digit, 64)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t testing.TB, c *etcdtest.Cluster, change ...func(*Options)) *Store {
	t.Helper()
	o := Options{Endpoints: c.Endpoints(), Key: sealKey(t, "a"), Timeout: time.Minute}
	for _, f := range change {
		f(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func create(t testing.TB, s *Store) *Head {
	t.Helper()
	h, err := s.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func upstream(name string, port int) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprint("127.0.0.1:", port)}}}
}

func draft(t testing.TB, s *store.State, e store.Edit) *store.Draft {
	t.Helper()
	var bad invalid.List
	d := s.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}
	return d
}

func put(rs ...store.Resource) store.Edit {
	var e store.Edit
	for _, r := range rs {
		e.Puts = append(e.Puts, store.Put{Resource: r})
	}
	return e
}

func recordOf(d *store.Draft, e store.Edit) *revisions.Record {
	return revisions.NewRecord(d, e, time.Now(), func(store.Ref) string { return "" })
}

// commit commits an edit that must succeed.
func commit(t testing.TB, s *Store, base *Head, state *store.State, e store.Edit) (*Head, *store.State) {
	t.Helper()
	d := draft(t, state, e)
	h, err := s.Commit(t.Context(), base, d, recordOf(d, e))
	if err != nil {
		t.Fatal(err)
	}
	return h, d.State()
}

// read reads the head and what it refers to.
func read(t testing.TB, s *Store, from Position) *Reading {
	t.Helper()
	h, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Read(t.Context(), h, from)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func nothing() Position { return Position{State: new(store.State)} }

func same(t testing.TB, got, want *store.State) {
	t.Helper()
	equal := func(x, y store.Resource) bool { return proto.Equal(x, y) }
	if got.Revision() != want.Revision() || !slices.EqualFunc(got.All(), want.All(), equal) {
		t.Fatalf("revision %d with %d resources, want revision %d with %d", got.Revision(), len(got.All()), want.Revision(), len(want.All()))
	}
}

func TestAGatewayReadsWhatAnotherOneCommitted(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	a, b := open(t, c), open(t, c)
	if _, err := a.Head(t.Context()); !errors.Is(err, ErrEmpty) {
		t.Fatalf("an empty etcd: %v", err)
	}
	h := create(t, a)
	if again := create(t, b); again.Instance != h.Instance || again.Mod != h.Mod {
		t.Fatal("a second fleet was created")
	}
	h, state := commit(t, a, h, new(store.State), put(upstream("x", 1), upstream("y", 1)))
	from := Position{State: state, ID: h.ID()}
	h, state = commit(t, a, h, state, put(upstream("x", 2), upstream("z", 1)))
	_, state = commit(t, a, h, state, store.Edit{Comment: "no y", Deletes: []store.Delete{{Kind: adminv1.Kind_KIND_UPSTREAM, Name: "y"}}})

	all := read(t, b, nothing())
	same(t, all.State, state)
	if !all.Complete || len(all.Records) != 3 {
		t.Errorf("complete %v, %d records", all.Complete, len(all.Records))
	}
	later := read(t, b, from)
	same(t, later.State, state)
	if !later.Complete || len(later.Records) != 2 || later.Records[1].Revision.GetComment() != "no y" || later.Records[1].Priors[0].Resource.GetName() != "y" {
		t.Errorf("complete %v, records %v", later.Complete, later.Records)
	}
	from.ID = "another commit's"
	if forked := read(t, b, from); forked.Complete || len(forked.Records) != 3 {
		t.Error("a revision that another commit made was taken for the same")
	}
	if other := open(t, c, func(o *Options) { o.Key = sealKey(t, "b") }); true {
		if _, err := other.Head(t.Context()); !errors.Is(err, ErrWrongKey) {
			t.Errorf("with another key: %v", err)
		}
	}
	if other := open(t, c, func(o *Options) { o.Prefix = "/other" }); true {
		if _, err := other.Head(t.Context()); !errors.Is(err, ErrEmpty) {
			t.Errorf("with another prefix: %v", err)
		}
	}
	if s, err := Open(Options{Endpoints: c.Endpoints()}); err == nil {
		s.Close()
		t.Error("a fleet without a seal key")
	}
}

func TestTenThousandResourcesAreOneRevision(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	var many []store.Resource
	for i := range store.MaxPerKind {
		u := upstream(fmt.Sprint("u", i), 1)
		u.Labels = map[string]string{"pad": strings.Repeat("x", store.MaxLabelBytes)}
		many = append(many, u)
	}
	h, state := commit(t, s, create(t, s), new(store.State), put(many...))
	same(t, read(t, s, nothing()).State, state)
	if h.Checkpoint.Revision != 1 || h.Checkpoint.Chunks < 5 {
		t.Errorf("the checkpoint has %d chunks as of revision %d", h.Checkpoint.Chunks, h.Checkpoint.Revision)
	}
	from := Position{State: state, ID: h.ID()}
	_, state = commit(t, s, h, state, put(upstream("u5", 2)))
	if later := read(t, s, from); len(later.Records) != 1 || len(later.Records[0].Step.Puts) != 1 {
		t.Error("more than the difference was read")
	}
	same(t, read(t, s, nothing()).State, state)
}

// countKeys returns how many keys begin with a prefix.
func countKeys(t *testing.T, c *etcdtest.Cluster, prefix string) (n int) {
	t.Helper()
	resp, err := c.Client().Get(t.Context(), prefix, prefixOption())
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Kvs)
}

func TestOldRecordsAndThoseOfLostRacesAreDeleted(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c, func(o *Options) { o.History, o.checkpointEvery = 5, 3 })
	start := create(t, s)
	h, state := start, new(store.State)
	states := map[int64]*store.State{}
	for i := range 20 {
		h, state = commit(t, s, h, state, put(upstream("x", i), upstream(fmt.Sprint("u", i), i)))
		states[state.Revision()] = state
		same(t, read(t, s, nothing()).State, state)
	}
	if n := countKeys(t, c, "/drawbridge/revision/"); n > 5+3 || n != len(h.Records) {
		t.Errorf("%d records in etcd, %d in the head", n, len(h.Records))
	}
	if n := countKeys(t, c, "/drawbridge/checkpoint/"); n != 1 {
		t.Errorf("%d chunks of checkpoints, each of one chunk", n)
	}
	// A writer that lost leaves no records. A writer that died before its swap
	// leaves records, which are deleted later.
	d := draft(t, new(store.State), put(upstream("lost", 1)))
	if _, err := s.Commit(t.Context(), start, d, recordOf(d, store.Edit{})); !errors.Is(err, ErrConflict) {
		t.Errorf("a stale writer: %v", err)
	}
	if n := countKeys(t, c, "/drawbridge/revision/"); n != len(h.Records) {
		t.Errorf("%d records in etcd, %d in the head: the loser left its own", n, len(h.Records))
	}
	if _, err := s.write(t.Context(), h.key.sealer, revisionPrefix, h.Revision()+1, "died", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		h, state = commit(t, s, h, state, put(upstream("x", 100+i)))
	}
	if n := countKeys(t, c, "/drawbridge/revision/"); n != len(h.Records) {
		t.Errorf("%d records in etcd, %d in the head: those of a dead writer remain", n, len(h.Records))
	}
	// The second commit after the death of a writer deletes what it left, however long the history
	// is, and even if the writer did not notice that it had lost the race.
	long := open(t, c)
	for _, kind := range []string{revisionPrefix, checkpointPrefix, revisionPrefix, checkpointPrefix} {
		late := h.Revision() % 4
		b, err := s.write(t.Context(), h.key.sealer, kind, h.Revision()+1-late, "died", make([]byte, 2*chunkBytes))
		if err != nil {
			t.Fatal(err)
		}
		if n := countKeys(t, c, "/drawbridge/"+blobPrefix(kind, b.Revision, b.ID)); n != b.Chunks {
			t.Fatalf("the dead writer left %d chunks", n)
		}
		for range 2 {
			h, state = commit(t, long, h, state, put(upstream("x", int(h.Revision()))))
		}
		want := 1
		if kind == revisionPrefix {
			want = len(h.Records)
		}
		if n := countKeys(t, c, "/drawbridge/"+kind); n != want {
			t.Errorf("%d chunks of %s instead of %d: those of a dead writer remain", n, kind, want)
		}
		read(t, long, nothing())
	}
	// A reader fails if its head was replaced and the records of that head were
	// deleted.
	old, err := s.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		h, state = commit(t, s, h, state, put(upstream("x", 200+i)))
	}
	if _, err := s.Read(t.Context(), old, nothing()); !errors.Is(err, ErrMoved) {
		t.Errorf("records deleted under a reader: %v", err)
	}
}

func TestAPendingRevisionIsAmended(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c)
	e := put(upstream("x", 1))
	e.ConfirmWithin = time.Hour
	h, state := commit(t, s, create(t, s), new(store.State), e)
	if p, err := h.Pending(); err != nil || p.GetRevision() != 1 {
		t.Fatalf("%v, %v", p, err)
	}
	r := read(t, s, nothing())
	if p, err := r.Head.Pending(); err != nil || p.GetRevision() != 1 {
		t.Fatalf("read: %v, %v", p, err)
	}
	confirmed := proto.Clone(r.Records[0].Revision).(*adminv1.Revision)
	confirmed.ConfirmPrincipal = "me"
	amended, err := s.Amend(t.Context(), h, confirmed)
	if err != nil {
		t.Fatal(err)
	}
	r = read(t, s, nothing())
	same(t, r.State, state)
	if p, err := r.Head.Pending(); err != nil || p != nil || r.Head.Mod != amended.Mod || r.Records[0].Revision.GetConfirmPrincipal() != "me" {
		t.Errorf("%v, %v, %v", p, err, r.Records[0].Revision)
	}
	if _, err := s.Amend(t.Context(), h, confirmed); !errors.Is(err, ErrConflict) {
		t.Errorf("amended on a stale head: %v", err)
	}
}

func TestAnIDBelongsToOneProcess(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c, func(o *Options) { o.Alive = time.Hour })
	h := create(t, s)
	first, restarted, other := Claim{"d1", "p1"}, Claim{"d1", "p2"}, Claim{"d2", "p3"}
	join := func(own Claim, again bool) (*Presence, error) { return s.Join(t.Context(), "x", own, again) }
	held, err := join(first, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range []Claim{restarted, other} {
		var taken *TakenError
		if _, err := join(own, own == other); !errors.As(err, &taken) || taken.By != first {
			t.Errorf("%v got the ID: %v", own, err)
		}
	}
	if err := held.Describe(t.Context(), h, []byte("first")); err != nil {
		t.Error(err)
	}
	later, err := join(restarted, true)
	if err != nil {
		t.Fatal(err)
	}
	<-held.Lost()
	if err := held.Describe(t.Context(), h, []byte("displaced")); !errors.Is(err, ErrDisplaced) {
		t.Errorf("a displaced process described itself: %v", err)
	}
	held.Leave()
	report, err := s.Duplicate(t.Context(), h, "x", "p1", []byte("duplicate"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Gateways(t.Context(), h)
	if err != nil || len(all) != 1 || string(all[0].Content) != "first" || !all[0].Connected || len(all[0].Duplicates) != 1 || string(all[0].Duplicates[0]) != "duplicate" {
		t.Errorf("%v, %v", all, err)
	}
	report.Leave()
	later.Leave()
	again, err := join(first, false)
	if err != nil {
		t.Fatal(err)
	}
	again.Leave()
	if all, err := s.Gateways(t.Context(), h); err != nil || all[0].Connected || len(all[0].Duplicates) > 0 {
		t.Errorf("%v, %v", all, err)
	}
}

// A machine that is cloned while its gateway runs has two processes with one claim.
func TestTheCloneOfAProcessIsNoticed(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, 1)
	s := open(t, c, func(o *Options) { o.Alive = time.Hour })
	h := create(t, s)
	p, err := s.Join(t.Context(), "x", Claim{"d", "p"}, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Leave()
	describe := func(p *Presence, want error) {
		t.Helper()
		if err := p.Describe(t.Context(), h, []byte("x")); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	describe(p, nil)
	clone := *p
	describe(&clone, nil)
	describe(&clone, nil)
	describe(p, ErrCloned)
}

// etcd's files hold no secret, and nothing else of the configuration.
func TestEtcdNeverSeesAKey(t *testing.T) {
	t.Parallel()
	const secret, name = "MIIEvQIBADANBgkqhkiG9w0BAQ", "a-name-of-a-resource"
	c := etcdtest.Start(t, 1)
	s := open(t, c, func(o *Options) { o.checkpointEvery = 2 })
	h, state := create(t, s), new(store.State)
	for i := range 6 {
		e := put(&adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
			CertificateChain: "chain", PrivateKey: fmt.Sprint(secret, i), Passphrase: fmt.Sprint("passphrase", secret, i)}}})
		e.Comment, e.ConfirmWithin = secret, time.Hour
		h, state = commit(t, s, h, state, e)
	}
	c.Kill(0)
	files := 0
	err := filepath.WalkDir(c.Dir(0), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, text := range []string{secret, name} {
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s holds %q in the clear", path, text)
			}
		}
		if bytes.Contains(b, []byte("/drawbridge/head")) {
			files++
		}
		return err
	})
	if err != nil || files == 0 {
		t.Errorf("%v; the head is in %d files", err, files)
	}
}
