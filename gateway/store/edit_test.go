package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

const (
	kListener    = adminv1.Kind_KIND_LISTENER
	kUpstream    = adminv1.Kind_KIND_UPSTREAM
	kCertificate = adminv1.Kind_KIND_CERTIFICATE
	kTrustBundle = adminv1.Kind_KIND_TRUST_BUNDLE
)

func put(rs ...Resource) []Put {
	var puts []Put
	for i, r := range rs {
		puts = append(puts, Put{invalid.Path("resources").Index(i), r})
	}
	return puts
}

func upstream(name string) *adminv1.Upstream {
	return &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: "127.0.0.1:1"}}}
}

func listener(name, upstream string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: "127.0.0.1:0", Protocol: adminv1.Protocol_PROTOCOL_TCP, Upstream: upstream}
}

// edit applies a valid edit.
func edit(t *testing.T, s *State, e Edit) *Draft {
	t.Helper()
	var bad invalid.List
	d := s.Edit(e, &bad)
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}
	return d
}

// faults applies an invalid edit, and returns its faults.
func faults(t *testing.T, s *State, e Edit) *invalid.Error {
	t.Helper()
	var bad invalid.List
	s.Edit(e, &bad)
	var err *invalid.Error
	if !errors.As(bad.Err(), &err) {
		t.Fatal("the edit was accepted")
	}
	return err
}

func actions(d *Draft) string {
	var out []string
	for _, c := range d.Changes() {
		out = append(out, c.Name+" "+strings.TrimPrefix(c.Action.String(), "CHANGE_ACTION_"))
	}
	return strings.Join(out, ", ")
}

func TestEditDoesNotChangeItsBase(t *testing.T) {
	var empty State
	d := edit(t, &empty, Edit{Puts: put(listener("web", "app"), upstream("app"))})
	if got := actions(d); got != "web CREATED, app CREATED" {
		t.Errorf("changes: %s", got)
	}
	if empty.Revision() != 0 || empty.Len(kUpstream) != 0 {
		t.Error("the base was modified")
	}
	s := d.State()
	if s.Revision() != 1 || s.Get(kUpstream, "app").GetRevision() != 1 || s.Get(kUpstream, "app").GetEtag() == "" {
		t.Errorf("revision %d, upstream %v", s.Revision(), s.Get(kUpstream, "app"))
	}

	changed := upstream("app")
	changed.Labels = map[string]string{"team": "pay"}
	d = edit(t, s, Edit{Puts: put(changed, listener("web", "app"))})
	if got := actions(d); got != "app UPDATED, web UNCHANGED" {
		t.Errorf("changes: %s", got)
	}
	if d.State().Revision() != 2 || d.State().Get(kListener, "web").GetRevision() != 1 {
		t.Error("an unchanged resource got a new revision")
	}
	if d.State().Get(kListener, "web") != s.Get(kListener, "web") {
		t.Error("an unchanged resource is not the same value")
	}
	if d.State().Get(kUpstream, "app").GetEtag() == s.Get(kUpstream, "app").GetEtag() {
		t.Error("the etag of a changed resource did not change")
	}
}

func TestAWriteThatChangesNothingKeepsTheRevision(t *testing.T) {
	s := edit(t, new(State), Edit{Puts: put(upstream("app"))}).State()
	again := proto.Clone(s.Get(kUpstream, "app")).(Resource) // with etag and revision, as a client reads it
	d := edit(t, s, Edit{Puts: put(again)})
	if d.Changed() || d.State().Revision() != 1 {
		t.Errorf("changes %s, revision %d", actions(d), d.State().Revision())
	}
}

func TestEditCopiesTheCallersMessage(t *testing.T) {
	mine := upstream("app")
	s := edit(t, new(State), Edit{Puts: put(mine)}).State()
	mine.Endpoints[0].Address = "changed"
	if got := s.Get(kUpstream, "app").(*adminv1.Upstream).GetEndpoints()[0].GetAddress(); got != "127.0.0.1:1" {
		t.Errorf("the state changed to %q with the caller's message", got)
	}
}

func TestPruneDeletesUnnamedResources(t *testing.T) {
	s := edit(t, new(State), Edit{Puts: put(upstream("a"), upstream("b"), listener("web", "b"))}).State()
	d := edit(t, s, Edit{Puts: put(upstream("a")), Prune: PruneAll()})
	if got := actions(d); got != "a UNCHANGED, b DELETED, web DELETED" {
		t.Errorf("changes: %s", got)
	}
	if d.State().Len(kListener) != 0 || d.State().Len(kUpstream) != 1 || d.State().Revision() != 2 {
		t.Error("not pruned")
	}
}

func TestFreeTextHoldsNoKey(t *testing.T) {
	key := "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE"
	inValue, inKey := upstream("v"), upstream("k")
	inValue.Labels = map[string]string{"k": key}
	inKey.Labels = map[string]string{key: "v"}
	err := faults(t, new(State), Edit{Puts: put(inValue, inKey), Comment: "for " + key})
	var got []string
	for _, f := range err.Faults {
		got = append(got, string(f.Field))
	}
	if want := []string{"options.comment", "resources[0].labels", "resources[1].labels"}; !slices.Equal(got, want) {
		t.Errorf("faults at %q, want %q", got, want)
	}
	if strings.Contains(err.Error(), "MHcC") {
		t.Errorf("%v", err)
	}
}

func TestEveryFaultIsReportedWithItsPath(t *testing.T) {
	s := edit(t, new(State), Edit{Puts: put(upstream("app"), listener("web", "app"))}).State()
	stale := upstream("app")
	stale.Etag, stale.Labels = "old", map[string]string{"a": "b"}
	gone := upstream("new")
	gone.Etag = "old"
	wrongRevision := int64(7)
	long := upstream("labels")
	long.Labels = map[string]string{"k": strings.Repeat("x", 300), "": "v"}

	err := faults(t, s, Edit{
		Puts: put(listener("Bad_Name", "unknown"), stale, listener("l2", "nowhere"), upstream("app"), gone, long,
			&adminv1.Route{Name: "r", Listeners: []string{"web", "none"}, Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{
				Upstreams: []*adminv1.WeightedUpstream{{Name: "app"}, {Name: "missing"}}}}},
			&adminv1.Upstream{Name: "tls", Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: "c", TrustBundles: []string{"t"}}}},
			(*adminv1.Upstream)(nil)),
		Deletes: []Delete{{Path: "deletes[0]", Kind: kUpstream, Name: "ghost"}, {Path: "deletes[1]", Name: "x"},
			{Path: "deletes[2]", Kind: kUpstream, Name: "app"}},
		ExpectedRevision: &wrongRevision,
		Comment:          strings.Repeat("c", MaxComment+1),
	})
	var got []string
	for _, f := range err.Faults {
		got = append(got, fmt.Sprintf("%d %s", f.Class, f.Field))
	}
	slices.Sort(got)
	want := []string{
		"0 deletes[1].kind",
		"0 deletes[2].name",
		"0 options.comment",
		"0 resources[0].name",
		"0 resources[0].upstream",
		"0 resources[2].upstream",
		"0 resources[3].name",
		"0 resources[5].labels",
		`0 resources[5].labels["k"]`,
		"0 resources[6].forward.upstreams[1].name",
		"0 resources[6].listeners[1]",
		"0 resources[7].tls.certificate",
		"0 resources[7].tls.trust_bundles[0]",
		"0 resources[8]",
		"1 deletes[0].name",
		"2 expected_revision",
		"2 resources[1].etag",
		"2 resources[4].etag",
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err.Worst() != invalid.Argument {
		t.Errorf("worst class %v", err.Worst())
	}
}

func TestDeleteOfAUsedResourceNamesItsUser(t *testing.T) {
	s := edit(t, new(State), Edit{Puts: put(upstream("app"), listener("web", "app"))}).State()
	err := faults(t, s, Edit{Deletes: []Delete{{Path: "name", Kind: kUpstream, Name: "app"}}})
	if err.Worst() != invalid.InUse || !strings.Contains(err.Error(), `upstream "app" is still used by listener "web" (upstream)`) {
		t.Errorf("%v: %v", err.Worst(), err)
	}
	// A resource can be deleted together with its user.
	d := edit(t, s, Edit{Deletes: []Delete{{Kind: kUpstream, Name: "app"}, {Kind: kListener, Name: "web"}}})
	if actions(d) != "app DELETED, web DELETED" {
		t.Error(actions(d))
	}
}

func TestEtagsGuardWrites(t *testing.T) {
	s := edit(t, new(State), Edit{Puts: put(upstream("app"))}).State()
	tag := s.Get(kUpstream, "app").GetEtag()
	fresh := upstream("app")
	fresh.Etag, fresh.Pool = tag, &adminv1.Pool{MaxIdle: new(int32(3))}
	s2 := edit(t, s, Edit{Puts: put(fresh)}).State()
	if d := edit(t, s2, Edit{Puts: put(fresh)}); d.Changed() {
		t.Error("the same again, as after a lost answer, is a change")
	}
	other := upstream("app")
	other.Etag = tag
	if err := faults(t, s2, Edit{Puts: put(other)}); err.Worst() != invalid.Conflict {
		t.Errorf("a stale etag is %v", err.Worst())
	}
	if err := faults(t, s2, Edit{Deletes: []Delete{{Kind: kUpstream, Name: "app", Etag: tag}}}); err.Worst() != invalid.Conflict {
		t.Errorf("a stale etag is %v", err.Worst())
	}
	edit(t, s2, Edit{Deletes: []Delete{{Kind: kUpstream, Name: "app", Etag: s2.Get(kUpstream, "app").GetEtag()}}})
}

func TestPutWithoutAKeyKeepsTheStoredKey(t *testing.T) {
	cert := func(chain, key string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: chain, PrivateKey: key}}}
	}
	s := edit(t, new(State), Edit{Puts: put(cert("chain", "key"))}).State()
	if d := edit(t, s, Edit{Puts: put(cert("chain", ""))}); d.Changed() {
		t.Error(actions(d))
	}
	labeled := cert("chain", "")
	labeled.Labels = map[string]string{"a": "b"}
	labeled.Info = &adminv1.CertificateInfo{Subject: "forged"}
	got := edit(t, s, Edit{Puts: put(labeled)}).State().Get(kCertificate, "c").(*adminv1.Certificate)
	if got.GetPem().GetPrivateKey() != "key" || got.GetInfo() != nil {
		t.Errorf("stored: %v", got)
	}
}

func TestTheSecretsOfACertificateAreKeptTogether(t *testing.T) {
	pem := func(key, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{CertificateChain: "chain", PrivateKey: key, Passphrase: passphrase}}}
	}
	pkcs12 := func(data, passphrase string) *adminv1.Certificate {
		return &adminv1.Certificate{Name: "c", Source: &adminv1.Certificate_Pkcs12{Pkcs12: &adminv1.CertificatePkcs12{Data: []byte(data), Passphrase: passphrase}}}
	}
	for _, tt := range []struct {
		what                string
		stored, write, want *adminv1.Certificate
	}{
		{"nothing but the chain", pem("key", "pass"), pem("", ""), pem("key", "pass")},
		{"another passphrase for the stored key", pem("key", "pass"), pem("", "new"), pem("key", "new")},
		{"another key, which is not encrypted", pem("key", "pass"), pem("key2", ""), pem("key2", "")},
		{"nothing of an archive", pkcs12("archive", "pass"), pkcs12("", ""), pkcs12("archive", "pass")},
		{"another passphrase for the stored archive", pkcs12("archive", "pass"), pkcs12("", "new"), pkcs12("archive", "new")},
		{"another archive, with an empty passphrase", pkcs12("archive", "pass"), pkcs12("archive2", ""), pkcs12("archive2", "")},
		{"an archive instead of PEM", pem("key", "pass"), pkcs12("", ""), pkcs12("", "")},
		{"PEM instead of an archive", pkcs12("archive", "pass"), pem("", ""), pem("", "")},
	} {
		s := edit(t, new(State), Edit{Puts: put(tt.stored)}).State()
		got := proto.Clone(edit(t, s, Edit{Puts: put(tt.write)}).State().Get(kCertificate, "c")).(*adminv1.Certificate)
		got.Etag, got.Revision = "", 0
		if !proto.Equal(got, tt.want) {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
}

func TestTouchTurnsUnchangedIntoUpdated(t *testing.T) {
	file := &adminv1.TrustBundle{Name: "corp", Source: &adminv1.TrustBundle_File{File: "/ca.pem"}}
	s := edit(t, new(State), Edit{Puts: put(file, upstream("app"))}).State()
	before := s.Get(kTrustBundle, "corp")
	d := edit(t, s, Edit{Puts: put(file)})
	d.Touch(new(invalid.List), Ref{kTrustBundle, "corp"}, Ref{kUpstream, "app"})
	after := d.State().Get(kTrustBundle, "corp")
	if actions(d) != "corp UPDATED" || d.State().Revision() != 2 || after.GetRevision() != 2 || after.GetEtag() == before.GetEtag() {
		t.Errorf("%s, revision %d, %v", actions(d), d.State().Revision(), after)
	}
	if before.GetRevision() != 1 {
		t.Error("the base was modified")
	}
}

func TestAKindHoldsAtMostTenThousand(t *testing.T) {
	var e Edit
	for i := range MaxPerKind + 1 {
		e.Puts = append(e.Puts, Put{"", upstream(fmt.Sprintf("u%d", i))})
	}
	if err := faults(t, new(State), e); err.Worst() != invalid.Exhausted {
		t.Errorf("%v: %v", err.Worst(), err)
	}
	e.Puts = e.Puts[:MaxPerKind]
	edit(t, new(State), e)
}

// If uses missed a kind or reference of the API, deletes could leave dangling
// references.
func TestEveryNameFieldOfTheAPIIsAReference(t *testing.T) {
	for _, tt := range []struct {
		r    Resource
		want []string
	}{
		{&adminv1.Listener{Upstream: "u", Tls: &adminv1.ServerTls{Certificates: []string{"c"}, ClientTrustBundles: []string{"t"}}},
			[]string{`upstream "u"`, `certificate "c"`, `trust bundle "t"`}},
		{&adminv1.Route{Listeners: []string{"l"}, Action: &adminv1.Route_Forward{Forward: &adminv1.Forward{Upstreams: []*adminv1.WeightedUpstream{{Name: "u"}}}}},
			[]string{`listener "l"`, `upstream "u"`}},
		{&adminv1.Upstream{Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{Certificate: "c", TrustBundles: []string{"t"}}}},
			[]string{`certificate "c"`, `trust bundle "t"`}},
		{&adminv1.Certificate{}, nil},
		{&adminv1.TrustBundle{}, nil},
	} {
		var got []string
		for _, u := range uses(tt.r) {
			for _, name := range u.names {
				got = append(got, Ref{u.kind, name}.String())
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%T: %v, want %v", tt.r, got, tt.want)
		}
		if !ValidKind(KindOf(tt.r)) || fmt.Sprintf("%T", New(KindOf(tt.r))) != fmt.Sprintf("%T", tt.r) {
			t.Errorf("%T is not a kind of its own", tt.r)
		}
	}
}

func TestUsersNamesEachReferrerOnce(t *testing.T) {
	l := listener("web", "a")
	l.Tls = &adminv1.ServerTls{Certificates: []string{"c"}, ClientTrustBundles: []string{"t", "t"}}
	s, err := Restore(1, []Resource{l, upstream("a"), &adminv1.Certificate{Name: "c"}, &adminv1.TrustBundle{Name: "t"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, used := range []Ref{{kUpstream, "a"}, {kCertificate, "c"}, {kTrustBundle, "t"}} {
		if got := slices.Collect(s.Users(used)); len(got) != 1 || got[0] != (Ref{kListener, "web"}) {
			t.Errorf("%v is used by %v", used, got)
		}
	}
}

func TestRestoreReturnsTheState(t *testing.T) {
	s := edit(t, new(State), Edit{Puts: put(upstream("b"), upstream("a"), listener("web", "a"))}).State()
	r, err := Restore(s.Revision(), s.All())
	if err != nil || r.Revision() != 1 || len(r.All()) != 3 || r.List(kUpstream)[0].GetName() != "a" {
		t.Fatalf("%v %v", r, err)
	}
	if _, err := Restore(1, []Resource{upstream("a"), upstream("a")}); err == nil {
		t.Error("a duplicate was accepted")
	}
}

func BenchmarkPutAmongTenThousand(b *testing.B) {
	var e Edit
	for i := range MaxPerKind - 1 {
		e.Puts = append(e.Puts, Put{"", upstream(fmt.Sprintf("u%d", i))})
	}
	var bad invalid.List
	s := new(State).Edit(e, &bad).State()
	b.ReportAllocs()
	for b.Loop() {
		s.Edit(Edit{Puts: []Put{{"upstream", upstream("new")}}}, &bad)
	}
}

// Pages of all resources begin at an index. A page that copied all resources would make the
// time of all pages grow with the square of their number.
func TestFromYieldsAllFromAnIndexOn(t *testing.T) {
	var empty State
	for range empty.From(0) {
		t.Error("an empty state yields a resource")
	}
	s := edit(t, &empty, Edit{Puts: put(listener("web", "app"), listener("api", "app"), upstream("app"), upstream("log"), upstream("db"))}).State()
	all := s.All()
	for i := range len(all) + 2 {
		if got := slices.Collect(s.From(i)); !slices.Equal(got, all[min(i, len(all)):]) {
			t.Errorf("from %d: %v", i, got)
		}
	}
}
