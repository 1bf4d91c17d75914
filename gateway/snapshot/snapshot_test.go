package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/fileroot"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A testbed is a state and the snapshot that is compiled from it.
type testbed struct {
	t    *testing.T
	ca   *certstest.CA
	snap *Snapshot
}

func newTestbed(t *testing.T) *testbed {
	return &testbed{t: t, ca: certstest.NewCA(t), snap: new(Snapshot)}
}

// testCompiler returns a Compiler that reads the files of tests.
func testCompiler() Compiler {
	return Compiler{FileRoots: fileroot.Roots{os.TempDir()}, GatewayLabels: map[string]string{"zone": "a"}}
}

// try compiles an edit.
func (w *testbed) try(e store.Edit) (*Snapshot, *store.Draft, *invalid.List) {
	w.t.Helper()
	var bad invalid.List
	d := w.snap.State().Edit(e, &bad)
	return compile(testCompiler(), w.snap, e, d, &bad), d, &bad
}

// compile gathers what the edit needs and compiles.
func compile(c Compiler, prev *Snapshot, e store.Edit, d *store.Draft, bad *invalid.List) *Snapshot {
	var missing Needs
	for {
		m, err := c.Gather(context.Background(), prev, e, missing)
		if err != nil {
			panic(err)
		}
		var next *Snapshot
		if next, missing = c.Compile(prev, d, m, bad); missing.None() {
			return next
		}
		*bad = invalid.List{}
		d = prev.State().Edit(e, bad)
	}
}

// put makes a valid edit live, and returns its warnings.
func (w *testbed) put(rs ...store.Resource) []invalid.Warning {
	w.t.Helper()
	next, _, bad := w.try(store.Edit{Puts: puts(rs...)})
	if err := bad.Err(); err != nil {
		w.t.Fatal(err)
	}
	w.snap = next
	return bad.Warnings()
}

// refused compiles an invalid edit, and returns its faults.
func (w *testbed) refused(rs ...store.Resource) []invalid.Fault {
	w.t.Helper()
	_, _, bad := w.try(store.Edit{Puts: puts(rs...)})
	var err *invalid.Error
	if !errors.As(bad.Err(), &err) {
		w.t.Fatal("accepted")
	}
	return err.Faults
}

func puts(rs ...store.Resource) []store.Put {
	var out []store.Put
	for i, r := range rs {
		out = append(out, store.Put{Path: invalid.Path(fmt.Sprintf("r%d", i)), Resource: r})
	}
	return out
}

func (w *testbed) bundle(name string) *adminv1.TrustBundle {
	return &adminv1.TrustBundle{Name: name, Source: &adminv1.TrustBundle_Pem{Pem: string(w.ca.TrustPEM())}}
}

func pemCertificate(name string, i *pki.Issued) *adminv1.Certificate {
	return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Pem{Pem: &adminv1.CertificatePem{
		CertificateChain: string(i.ChainPEM), PrivateKey: string(i.KeyPEM)}}}
}

func (w *testbed) client(name string) *adminv1.Certificate {
	return pemCertificate(name, w.ca.Client(w.t, name))
}
func (w *testbed) server(name string) *adminv1.Certificate {
	return pemCertificate(name, w.ca.Server(w.t, "localhost"))
}

func tlsUpstream(name string, t *adminv1.UpstreamTls) *adminv1.Upstream {
	u := &adminv1.Upstream{Name: name, Endpoints: []*adminv1.Endpoint{{Address: "up.example:443"}}}
	if t != nil {
		u.Transport = &adminv1.Upstream_Tls{Tls: t}
	}
	return u
}

func listener(name, address string, p adminv1.Protocol, upstream string) *adminv1.Listener {
	return &adminv1.Listener{Name: name, Address: address, Protocol: p, Upstream: upstream}
}

func forward(name string, m *adminv1.RouteMatch, listener string, upstreams ...string) *adminv1.Route {
	f := &adminv1.Forward{}
	for _, u := range upstreams {
		f.Upstreams = append(f.Upstreams, &adminv1.WeightedUpstream{Name: u, Weight: new(int32(1))})
	}
	return &adminv1.Route{Name: name, Listeners: []string{listener}, Match: m, Action: &adminv1.Route_Forward{Forward: f}}
}

const (
	tcp   = adminv1.Protocol_PROTOCOL_TCP
	httpP = adminv1.Protocol_PROTOCOL_HTTP
)

// prefix returns a match of a path prefix.
func prefix(p string) *adminv1.RouteMatch {
	return &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: p}}}
}

func TestUnchangedResourcesKeepTheirObject(t *testing.T) {
	w := newTestbed(t)
	tlsListener := listener("front", "127.0.0.1:1", httpP, "b")
	tlsListener.Tls = &adminv1.ServerTls{Certificates: []string{"server"}}
	a := tlsUpstream("a", &adminv1.UpstreamTls{Certificate: "ca", TrustBundles: []string{"trust-a"}})
	w.put(w.bundle("trust-a"), w.bundle("trust-b"), w.client("ca"), w.client("cb"), w.server("server"), a,
		tlsUpstream("b", &adminv1.UpstreamTls{Certificate: "cb", TrustBundles: []string{"trust-b"}}),
		listener("la", "127.0.0.1:2", tcp, "a"), listener("lb", "127.0.0.1:3", tcp, "b"), tlsListener,
		forward("ra", prefix("/a"), "front", "a"))

	type live struct {
		name string
		get  func(*Snapshot) any
	}
	upstreamA := live{"upstream a", func(s *Snapshot) any { return s.upstreams.Get("a").live }}
	upstreamB := live{"upstream b", func(s *Snapshot) any { return s.upstreams.Get("b").live }}
	backB := live{"pool of b", func(s *Snapshot) any { return s.upstreams.Get("b").back }}
	tableA := live{"listener la", func(s *Snapshot) any { return s.TCP("la") }}
	tableB := live{"listener lb", func(s *Snapshot) any { return s.TCP("lb") }}
	front := live{"listener front", func(s *Snapshot) any { return s.HTTP("front") }}
	frontTLS := live{"TLS of front", func(s *Snapshot) any { return s.HTTP("front").TLS }}
	certA := live{"certificate ca", func(s *Snapshot) any { return s.certificates.Get("ca").live }}
	all := []live{upstreamA, upstreamB, backB, tableA, tableB, front, frontTLS, certA}

	labeled := proto.Clone(a).(*adminv1.Upstream)
	labeled.Labels = map[string]string{"a": "b"}
	pooled := proto.Clone(labeled).(*adminv1.Upstream)
	pooled.Pool = &adminv1.Pool{MaxIdle: new(int32(7))}
	for _, step := range []struct {
		what    string
		put     []store.Resource
		changed []live
	}{
		{"the same again", []store.Resource{a}, nil},
		{"only labels", []store.Resource{labeled}, nil},
		{"another upstream", []store.Resource{tlsUpstream("c", nil)}, nil},
		{"upstream a", []store.Resource{pooled}, []live{upstreamA, tableA, front}},
		{"the client certificate of a", []store.Resource{w.client("ca")}, []live{certA, upstreamA, tableA, front}},
		{"the trust of a, but with the same CAs", []store.Resource{func() store.Resource {
			b := w.bundle("trust-a")
			b.Labels = map[string]string{"x": "y"}
			return b
		}()}, nil},
		{"a route of front", []store.Resource{forward("rb", prefix("/b"), "front", "b")}, []live{front}},
		{"front's certificate", []store.Resource{w.server("server")}, []live{front, frontTLS}},
		{"lb's timeouts", []store.Resource{func() store.Resource {
			l := listener("lb", "127.0.0.1:3", tcp, "b")
			l.Timeouts = &adminv1.ListenerTimeouts{Idle: durationpb.New(time.Minute)}
			return l
		}()}, []live{tableB}},
	} {
		before := w.snap
		w.put(step.put...)
		for _, l := range all {
			want := slices.ContainsFunc(step.changed, func(c live) bool { return c.name == l.name })
			if got := l.get(before) != l.get(w.snap); got != want {
				t.Errorf("%s: %s changed: %v, want %v", step.what, l.name, got, want)
			}
		}
	}
}

func TestFaultsOfAllResourcesAreReported(t *testing.T) {
	w := newTestbed(t)
	other := w.ca.Client(t, "other")
	mismatched := w.client("mismatched")
	mismatched.GetPem().PrivateKey = string(other.KeyPEM)
	depth := int32(1000)
	badTLS := listener("tls", "127.0.0.1:1", tcp, "")
	badTLS.Tls = &adminv1.ServerTls{ClientAuth: adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, MinVersion: 99}
	badTLS.Http = &adminv1.HttpOptions{}
	badTLS.Timeouts = &adminv1.ListenerTimeouts{Idle: durationpb.New(-time.Second)}
	faults := w.refused(
		&adminv1.TrustBundle{Name: "garbage", Source: &adminv1.TrustBundle_Pem{Pem: "garbage"}},
		&adminv1.TrustBundle{Name: "none"},
		&adminv1.TrustBundle{Name: "file", Source: &adminv1.TrustBundle_File{File: "relative.pem"}},
		mismatched,
		&adminv1.Certificate{Name: "files", Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: "/does/not/exist", PrivateKeyPath: "/etc"}}},
		&adminv1.Upstream{Name: "u", Endpoints: []*adminv1.Endpoint{{Address: "nowhere"}, {Address: "h:0"}, {Address: "bad host:1"}, {Address: "h:1", Weight: new(int32(70000))}, {Address: "h:1"}, {Address: "unix:rel"}},
			Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{
				MinVersion: adminv1.TlsVersion_TLS_VERSION_1_3, MaxVersion: adminv1.TlsVersion_TLS_VERSION_1_2, CipherSuites: []string{"NOPE"}, Groups: []string{"P-999"},
				ServerName: "host:443", VerifyDepth: &depth, Verification: 42, Alpn: []string{"", "h2", "h2"}}},
			Timeouts: &adminv1.UpstreamTimeouts{Connect: durationpb.New(0)},
			Http:     &adminv1.UpstreamHttp{Protocol: 9}},
		&adminv1.Upstream{Name: "empty"},
		&adminv1.Listener{Name: "l", Address: "example.com:80"},
		badTLS,
		&adminv1.Route{Name: "r", Match: &adminv1.RouteMatch{Hosts: []string{"*.*.com"}, Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Regex{Regex: "("}}}},
	)
	var got []string
	for _, f := range faults {
		got = append(got, string(f.Field))
		if f.Message == "" || strings.Contains(f.Message, "PRIVATE KEY") {
			t.Errorf("%s: %q", f.Field, f.Message)
		}
	}
	slices.Sort(got)
	want := []string{
		"r0.pem", "r1.pem", "r2.file", "r3.pem.private_key", "r4.files.certificate_path", "r4.files.private_key_path",
		"r5.endpoints[0].address", "r5.endpoints[1].address", "r5.endpoints[2].address", "r5.endpoints[3].weight", "r5.endpoints[4].address", "r5.endpoints[5].address",
		"r5.http.protocol", "r5.timeouts.connect", "r5.tls.alpn[0]", "r5.tls.alpn[2]", "r5.tls.cipher_suites[0]", "r5.tls.groups[0]", "r5.tls.min_version",
		"r5.tls.server_name", "r5.tls.verification", "r5.tls.verify_depth",
		"r6.endpoints", "r7.address", "r7.protocol",
		"r8.http", "r8.timeouts.idle", "r8.tls.certificates", "r8.tls.client_trust_bundles", "r8.tls.min_version",
		"r9.forward", "r9.listeners", "r9.match.hosts[0]", "r9.match.path",
	}
	if !slices.Equal(got, want) {
		t.Errorf("faults at\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		for _, f := range faults {
			t.Log(f)
		}
	}
}

func TestOverlappingListenersAreRefused(t *testing.T) {
	for _, tt := range []struct {
		a, b    string
		overlap bool
	}{
		{"127.0.0.1:80", "127.0.0.1:80", true},
		{"127.0.0.1:80", "127.0.0.2:80", false},
		{"127.0.0.1:80", "localhost:80", true},
		{":80", "127.0.0.1:80", true},
		{"[::1]:80", ":80", true},
		{"0.0.0.0:80", "[::1]:80", false},
		{"0.0.0.0:80", "127.0.0.1:80", true},
		{"[::]:80", "0.0.0.0:80", true},
		{"127.0.0.1:0", "127.0.0.1:0", false},
		{"unix:/run/a.sock", "unix:/run/a.sock", true},
		{"unix:/run/a.sock", "unix:/run/../run/a.sock", true},
		{"unix:/run/a.sock", "unix:/run/b.sock", false},
	} {
		w := newTestbed(t)
		w.put(listener("z", tt.a, tcp, ""))
		_, _, bad := w.try(store.Edit{Puts: puts(listener("a", tt.b, httpP, ""))})
		if got := bad.Len() > 0; got != tt.overlap {
			t.Errorf("%s and %s: %v", tt.a, tt.b, bad.Err())
		} else if got && (bad.Faults()[0].Field != "r0.address" || !strings.Contains(bad.Faults()[0].Message, `listener "z"`)) {
			t.Errorf("%s and %s: %v", tt.a, tt.b, bad.Faults())
		}
	}
}

func TestAmbiguousRoutesAreRejectedAtTheOneWritten(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, "u"), forward("z", prefix("/v2/"), "web", "u"))
	faults := w.refused(forward("a", prefix("/v2/"), "web", "u"))
	if len(faults) != 1 || faults[0].Field != "r0.match" || !strings.Contains(faults[0].Message, `route "z"`) {
		t.Errorf("%v", faults)
	}
	w.put(forward("a", prefix("/v2/x"), "web", "u"))
}

func TestPlaintextListenerCannotUseFromHost(t *testing.T) {
	w := newTestbed(t)
	fromHost := &adminv1.UpstreamTls{ServerNameSource: adminv1.ServerNameSource_SERVER_NAME_SOURCE_FROM_HOST}
	warnings := w.put(tlsUpstream("u", fromHost), listener("tcp", "127.0.0.1:1", tcp, "u"), listener("http", "127.0.0.1:2", httpP, "u"))
	if len(warnings) != 1 || warnings[0].Field != "r1.upstream" || !strings.Contains(warnings[0].Message, "SNI") {
		t.Errorf("%v", warnings)
	}
}

func TestExpressionsThatAreTooLargeTogetherAreRefused(t *testing.T) {
	w := newTestbed(t)
	rs := []store.Resource{tlsUpstream("u", nil), listener("web", "127.0.0.1:1", httpP, "u")}
	for i := range 60 {
		m := &adminv1.RouteMatch{Path: &adminv1.PathMatch{Kind: &adminv1.PathMatch_Regex{Regex: fmt.Sprintf("/(a|b|c){1,900}%d", i)}}}
		rs = append(rs, forward(fmt.Sprintf("r%d", i), m, "web", "u"))
	}
	faults := w.refused(rs...)
	if len(faults) != 1 || !strings.HasSuffix(string(faults[0].Field), ".match.path") || !strings.Contains(faults[0].Message, "together") {
		t.Errorf("%v", faults)
	}
}

func TestARouteMustFitItsListeners(t *testing.T) {
	w := newTestbed(t)
	w.put(tlsUpstream("u", nil), listener("plain", "127.0.0.1:1", tcp, "u"), listener("web", "127.0.0.1:2", httpP, "u"))
	r := forward("r", &adminv1.RouteMatch{Hosts: []string{"a.example"}, Path: prefix("/x").Path, Methods: []string{"GET"}}, "plain", "u")
	r.RequestHeaders = &adminv1.HeaderRules{Remove: []string{"Content-Length"}, Set: []*adminv1.HeaderValue{{Name: "X-A", Value: "a\r\nb"}}}
	var got []string
	for _, f := range w.refused(r) {
		got = append(got, string(f.Field))
	}
	slices.Sort(got)
	want := []string{"r0.match.hosts", "r0.match.methods", "r0.match.path", "r0.request_headers", "r0.request_headers.remove[0]", "r0.request_headers.set[0].value"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}

	// A listener must also fit the routes that it has.
	w.put(forward("path", prefix("/x"), "web", "u"))
	if faults := w.refused(listener("web", "127.0.0.1:2", tcp, "u")); len(faults) != 1 || faults[0].Field != `route["path"].match.path` {
		t.Errorf("%v", faults)
	}
}

func TestWarningsNamePossibleMistakes(t *testing.T) {
	w := newTestbed(t)
	warnings := w.put(w.server("server"), tlsUpstream("u", &adminv1.UpstreamTls{
		Certificate: "server", ServerName: "10.0.0.1", MinVersion: adminv1.TlsVersion_TLS_VERSION_1_0,
		CipherSuites: []string{"HIGH:!aNULL:!MD5"}, Verification: adminv1.Verification_VERIFICATION_INSECURE_SKIP}))
	if i := slices.IndexFunc(warnings, func(w invalid.Warning) bool { return w.Field == "r1.tls.certificate" }); i < 0 || warnings[i].Finding != "NO_CLIENT_AUTH" {
		t.Errorf("no typed warning of the certificate's use in %v", warnings)
	}
	for _, want := range []string{"r1.tls.certificate", "r1.tls.server_name", "r1.tls.min_version", "r1.tls.cipher_suites", "r1.tls.verification"} {
		if !slices.ContainsFunc(warnings, func(w invalid.Warning) bool { return string(w.Field) == want }) {
			t.Errorf("no warning at %s in %v", want, warnings)
		}
	}
	if s := w.snap.SecurityWarnings(); len(s) != 1 || s[0].Field != `upstream["u"].tls.verification` {
		t.Errorf("standing: %v", s)
	}
	// The warning stays in the status as long as the upstream is live, and repeats when the
	// same upstream is written again.
	again := w.put(proto.Clone(w.snap.State().Get(adminv1.Kind_KIND_UPSTREAM, "u")).(store.Resource))
	if len(again) != len(warnings) || len(w.snap.SecurityWarnings()) != 1 {
		t.Errorf("written again: %v; in the status: %v", again, w.snap.SecurityWarnings())
	}
	w.put(tlsUpstream("u", nil))
	if s := w.snap.SecurityWarnings(); len(s) != 0 {
		t.Errorf("standing: %v", s)
	}
}

// files writes an issued certificate to a directory and returns the resource.
func files(t *testing.T, dir, name string, i *pki.Issued) *adminv1.Certificate {
	t.Helper()
	chain, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	for path, content := range map[string][]byte{chain: i.ChainPEM, key: i.KeyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &adminv1.Certificate{Name: name, Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{CertificatePath: chain, PrivateKeyPath: key}}}
}

func TestFilesAreReadWhenTheResourceIsWritten(t *testing.T) {
	w, dir := newTestbed(t), t.TempDir()
	c := files(t, dir, "c", w.ca.Client(t, "one"))
	w.put(c, tlsUpstream("u", &adminv1.UpstreamTls{Certificate: "c"}))
	first := w.snap

	second := w.ca.Client(t, "two")
	files(t, dir, "c", second)
	w.put(tlsUpstream("other", nil))
	if w.snap.upstreams.Get("u").live != first.upstreams.Get("u").live {
		t.Error("an unrelated write read the files again")
	}
	w.put(c)
	if got := w.snap.certificates.Get("c").live.Leaf(); !got.Equal(second.Leaf) {
		t.Errorf("the live certificate is %v", got.Subject)
	}
	if w.snap.upstreams.Get("u").live == first.upstreams.Get("u").live {
		t.Error("the upstream still has the old certificate")
	}
	if got := w.snap.Reloaded(first); len(got) != 1 || got[0].Name != "c" {
		t.Errorf("Reloaded() = %v", got)
	}

	// A file that cannot be read does not change the live certificate.
	os.WriteFile(filepath.Join(dir, "c.pem"), []byte("-----BEGIN CERT"), 0o600)
	if faults := w.refused(c); len(faults) != 1 || faults[0].Field != "r0.files.certificate_path" {
		t.Errorf("%v", faults)
	}
}

func TestOnlyTheFaultyRestoredResourceIsDown(t *testing.T) {
	w, dir := newTestbed(t), t.TempDir()
	c := files(t, dir, "c", w.ca.Client(t, "one"))
	s := files(t, dir, "s", w.ca.Server(t, "localhost"))
	tlsListener := listener("front", "127.0.0.1:1", tcp, "fine")
	tlsListener.Tls = &adminv1.ServerTls{Certificates: []string{"s"}}
	w.put(c, s, tlsUpstream("u", &adminv1.UpstreamTls{Certificate: "c"}), tlsUpstream("fine", nil),
		tlsListener, listener("web", "127.0.0.1:2", httpP, "u"), listener("plain", "127.0.0.1:3", tcp, "fine"))
	for _, f := range []string{"c.pem", "s-key.pem"} {
		if err := os.Remove(filepath.Join(dir, f)); err != nil {
			t.Fatal(err)
		}
	}

	w.snap = testCompiler().Restore(context.Background(), w.snap.State())
	var got []string
	for _, p := range w.snap.Problems() {
		got = append(got, p.Ref.String())
		if !strings.Contains(p.Reason, "no such file") {
			t.Errorf("%v: %s", p.Ref, p.Reason)
		}
	}
	if want := `certificate "c" certificate "s" upstream "u" listener "front"`; strings.Join(got, " ") != want {
		t.Errorf("down: %v, want %s", got, want)
	}
	if l := w.snap.Listener("front"); l.Down == "" || w.snap.TCP("front") != nil {
		t.Error("a TLS listener without its certificate is not down")
	}
	if len(w.snap.upstreams.Get("u").live.Endpoints()) != 0 {
		t.Error("an upstream without its client certificate takes traffic")
	}
	if w.snap.HTTP("web") == nil || w.snap.TCP("plain") == nil {
		t.Error("a resource that does not depend on the files is down too")
	}

	// Unrelated writes still succeed. They neither fix nor hide the problem.
	w.put(tlsUpstream("new", nil))
	if n := len(w.snap.Problems()); n != 4 {
		t.Errorf("%d problems after an unrelated write", n)
	}
	// A write of a dependent resource is refused.
	changed := tlsUpstream("u", &adminv1.UpstreamTls{Certificate: "c", ServerName: "x.example"})
	if faults := w.refused(changed); faults[0].Field != "r0.tls.certificate" || !strings.Contains(faults[0].Message, "is down") {
		t.Errorf("%v", faults)
	}
	// When the files are back, the next write brings the certificate up.
	files(t, dir, "c", w.ca.Client(t, "one"))
	files(t, dir, "s", w.ca.Server(t, "localhost"))
	w.put(tlsUpstream("new", nil))
	if p := w.snap.Problems(); len(p) != 0 {
		t.Errorf("still down: %v", p)
	}
	if len(w.snap.upstreams.Get("u").live.Endpoints()) != 1 || w.snap.TCP("front") == nil {
		t.Error("the certificate is not up again")
	}
}

func TestPresentOmitsKeysAndAddsInfo(t *testing.T) {
	w := newTestbed(t)
	w.put(w.client("c"), w.bundle("t"), &adminv1.TrustBundle{Name: "sys", Source: &adminv1.TrustBundle_System{System: &adminv1.SystemRoots{}}})
	stored := w.snap.State().Get(adminv1.Kind_KIND_CERTIFICATE, "c").(*adminv1.Certificate)
	shown := w.snap.Present(stored).(*adminv1.Certificate)
	if text := shown.String(); strings.Contains(text, "PRIVATE KEY") || shown.GetPem().GetCertificateChain() == "" || shown.GetEtag() == "" {
		t.Errorf("%s", text)
	}
	if !strings.Contains(stored.GetPem().GetPrivateKey(), "PRIVATE KEY") {
		t.Error("the stored message lost its key")
	}
	if i := shown.GetInfo(); i.GetSha256Fingerprint() == "" || i.GetChainLength() == 0 || i.GetNotAfter().AsTime().Before(time.Now()) || !slices.Contains(i.GetKeyUsages(), "clientAuth") {
		t.Errorf("info: %v", i)
	}
	bundle := w.snap.Present(w.snap.State().Get(adminv1.Kind_KIND_TRUST_BUNDLE, "t")).(*adminv1.TrustBundle)
	if bundle.GetInfo().GetCount() != 1 || len(bundle.GetInfo().GetCertificates()) != 1 {
		t.Errorf("info: %v", bundle.GetInfo())
	}
	// No field that is added later may reveal a private key.
	labeled := proto.Clone(stored).(*adminv1.Certificate)
	labeled.Labels = map[string]string{"a": "b"}
	if got := w.snap.Present(labeled).(*adminv1.Certificate); got.GetLabels()["a"] != "b" {
		t.Error("labels are lost")
	}
}

func TestAUnixEndpointNeedsANameToVerify(t *testing.T) {
	w := newTestbed(t)
	u := &adminv1.Upstream{Name: "u", Endpoints: []*adminv1.Endpoint{{Address: "unix:/run/x.sock"}}}
	if faults := w.refused(u); faults[0].Field != "r0.tls.server_name" {
		t.Errorf("%v", faults)
	}
	u.Transport = &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{ServerName: "x.example"}}
	w.put(u)
	u.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
	w.put(u)
}
