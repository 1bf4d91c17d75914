package snapshot

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/drawbridge-gateway/drawbridge/certs/pki"
	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A randomTestbed makes random edits. With few names and addresses, many resources
// refer to each other, and many edits have faults.
type randomTestbed struct {
	*rand.Rand
	issued  []*pki.Issued
	bundles []string // PEM
	dir     string   // directory of certificate files; some files are missing at first
}

func newRandomTestbed(t *testing.T, w *testbed, seed uint64) *randomTestbed {
	r := &randomTestbed{Rand: rand.New(rand.NewPCG(seed, 3)), dir: t.TempDir()}
	for i := range 4 {
		r.issued = append(r.issued, w.ca.Server(t, fmt.Sprintf("h%d.test", i)))
	}
	r.bundles = []string{string(w.ca.TrustPEM()), string(newTestbed(t).ca.TrustPEM())}
	return r
}

func (r *randomTestbed) name(kind string) string { return fmt.Sprint(kind, r.IntN(5)) }

// gateways returns a random selector for tests whose gateway has zone=a. Most are empty.
func (r *randomTestbed) gateways() string {
	return []string{"", "", "", "", "zone=a", "zone=b", "zone!=a", "zone in (b,c)"}[r.IntN(8)]
}

func (r *randomTestbed) one(n int) bool { return r.IntN(n) == 0 }

func (r *randomTestbed) labels() map[string]string {
	return map[string]string{"l": fmt.Sprint(r.IntN(3))}
}

// edit returns a random edit, without paths.
func (r *randomTestbed) edit() store.Edit {
	var e store.Edit
	taken := map[store.Ref]bool{}
	for range 1 + r.IntN(4) {
		if r.one(6) {
			k := store.Kinds()[r.IntN(5)]
			e.Deletes = append(e.Deletes, store.Delete{Kind: k, Name: r.name(string("bculr"[slices.Index(store.Kinds(), k)]))})
			continue
		}
		res := r.resource()
		if !taken[store.RefOf(res)] {
			taken[store.RefOf(res)] = true
			e.Puts = append(e.Puts, store.Put{Path: invalid.Path(fmt.Sprintf("r%d", len(e.Puts))), Resource: res})
		}
	}
	return e
}

func (r *randomTestbed) resource() store.Resource {
	switch r.IntN(10) {
	case 0:
		return &adminv1.TrustBundle{Name: r.name("b"), Labels: r.labels(), Source: &adminv1.TrustBundle_Pem{Pem: r.bundles[r.IntN(2)]}}
	case 1, 2:
		i := r.issued[r.IntN(4)]
		if r.one(3) {
			base := filepath.Join(r.dir, fmt.Sprint(r.IntN(4)))
			return &adminv1.Certificate{Name: r.name("c"), Labels: r.labels(), Source: &adminv1.Certificate_Files{Files: &adminv1.CertificateFiles{
				CertificatePath: base + ".pem", PrivateKeyPath: base + "-key.pem"}}}
		}
		c := pemCertificate(r.name("c"), i)
		c.Labels = r.labels()
		return c
	case 3, 4:
		return r.upstream()
	case 5, 6:
		return r.listener()
	}
	return r.route()
}

func (r *randomTestbed) upstream() *adminv1.Upstream {
	u := &adminv1.Upstream{Name: r.name("u"), Labels: r.labels(), Gateways: r.gateways(), Endpoints: []*adminv1.Endpoint{{Address: fmt.Sprintf("up%d.test:443", r.IntN(3))}}}
	switch r.IntN(6) {
	case 0:
		u.Transport = &adminv1.Upstream_Passthrough{Passthrough: &adminv1.Passthrough{}}
	case 1, 2:
		u.Transport = &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}}
	default:
		t := &adminv1.UpstreamTls{TrustBundles: []string{r.name("b")}}
		if r.one(2) {
			t.Certificate = r.name("c")
		}
		if r.one(4) {
			t.Verification = adminv1.Verification_VERIFICATION_REPORT_ONLY
		}
		u.Transport = &adminv1.Upstream_Tls{Tls: t}
		if r.one(3) {
			u.Pool = &adminv1.Pool{Warm: int32(r.IntN(2))}
		}
	}
	if r.one(12) {
		u.Endpoints[0].Address = "not an address"
	}
	return u
}

func (r *randomTestbed) listener() *adminv1.Listener {
	hosts := []string{"127.0.0.1", "127.0.0.2", "0.0.0.0"}
	l := listener(r.name("l"), fmt.Sprintf("%s:%d", hosts[r.IntN(3)], 1+r.IntN(8)), httpP, "")
	l.Labels, l.Gateways = r.labels(), r.gateways()
	if r.one(3) {
		l.Protocol = adminv1.Protocol_PROTOCOL_TCP
	}
	if r.one(2) {
		l.Upstream = r.name("u")
	}
	if r.one(2) {
		l.Tls = &adminv1.ServerTls{Certificates: []string{r.name("c")}}
		if r.one(2) {
			l.Tls.Certificates = append(l.Tls.Certificates, r.name("c"))
		}
		if r.one(3) {
			l.Tls.ClientAuth, l.Tls.ClientTrustBundles = adminv1.ClientAuth_CLIENT_AUTH_REQUIRED, []string{r.name("b")}
		}
	}
	if r.one(4) {
		l.Timeouts = &adminv1.ListenerTimeouts{Idle: durationpb.New(1e9 * 5)}
	}
	return l
}

func (r *randomTestbed) route() *adminv1.Route {
	m := &adminv1.RouteMatch{}
	if r.one(2) {
		m.Hosts = []string{fmt.Sprintf("h%d.test", r.IntN(3))}
	}
	if r.one(2) {
		m.Path = &adminv1.PathMatch{Kind: &adminv1.PathMatch_Prefix{Prefix: fmt.Sprintf("/p%d/", r.IntN(3))}}
	}
	if r.one(4) {
		m.Methods = []string{"GET"}
	}
	msg := forward(r.name("r"), m, r.name("l"), r.name("u"))
	msg.Labels, msg.Gateways = r.labels(), r.gateways()
	if r.one(3) {
		msg.Listeners = append(msg.Listeners, r.name("l"))
	}
	if r.one(8) {
		msg.Action = &adminv1.Route_Respond{Respond: &adminv1.Respond{Code: ptr(int32(200 + 500*r.IntN(2)))}}
	}
	return msg
}

func ptr[T any](v T) *T { return &v }

// An incremental compile looks only at resources that the edit can affect. It finds
// the same faults and warnings as a complete compile, and builds the same snapshot.
// So does a compile that starts from the stored state alone.
func TestAnIncrementalCompileEqualsACompleteOne(t *testing.T) {
	accepted, down := 0, 0
	for seed := range uint64(3) {
		w := newTestbed(t)
		r := newRandomTestbed(t, w, seed)
		// Certificates whose files do not exist are down at the start.
		w.snap = r.begin(t)
		for i := range 150 {
			if i%30 == 29 { // from now on, resources that need the file can be up
				r.writeFiles(t, i/30)
			}
			what := fmt.Sprintf("seed %d, edit %d", seed, i)
			next, ok := r.step(t, what, w.snap)
			if !ok {
				continue
			}
			accepted++
			if len(next.Problems()) > 0 {
				down++
			}
			w.snap = next
		}
	}
	if accepted < 100 || down < 20 {
		t.Errorf("only %d edits were accepted, %d of them with resources that are down", accepted, down)
	}
}

// begin returns the snapshot of a state in which some files are missing.
func (r *randomTestbed) begin(t *testing.T) *Snapshot {
	var all []store.Resource
	seen := map[store.Ref]bool{}
	for range 40 {
		if res := r.resource(); !seen[store.RefOf(res)] {
			seen[store.RefOf(res)] = true
			all = append(all, res)
		}
	}
	for i := range 5 { // five rounds, so that few references dangle
		for _, res := range []store.Resource{
			&adminv1.TrustBundle{Name: fmt.Sprint("b", i), Source: &adminv1.TrustBundle_Pem{Pem: r.bundles[0]}},
			pemCertificate(fmt.Sprint("c", i), r.issued[0]),
			plaintext(fmt.Sprint("u", i), 1),
			listener(fmt.Sprint("l", i), fmt.Sprintf("127.0.0.1:%d", 100+i), httpP, ""),
		} {
			if !seen[store.RefOf(res)] {
				all = append(all, res)
			}
		}
	}
	state, err := store.Restore(1, all)
	if err != nil {
		t.Fatal(err)
	}
	return testCompiler().Restore(t.Context(), state)
}

func (r *randomTestbed) writeFiles(t *testing.T, i int) {
	base := filepath.Join(r.dir, fmt.Sprint(i%4))
	for name, content := range map[string][]byte{base + ".pem": r.issued[i%4].ChainPEM, base + "-key.pem": r.issued[i%4].KeyPEM} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// step compiles one edit in each way and compares the results. ok says that the edit
// was accepted.
func (r *randomTestbed) step(t *testing.T, name string, prev *Snapshot) (next *Snapshot, ok bool) {
	e := r.edit()
	c := testCompiler()
	var missing Needs
	for {
		m, err := c.Gather(context.Background(), prev, e, missing)
		if err != nil {
			t.Fatal(err)
		}
		var bad, badAll invalid.List
		d, dAll := prev.State().Edit(e, &bad), prev.State().Edit(e, &badAll)
		faulty := bad.Len() > 0
		next, missing = c.Compile(prev, d, m, &bad)
		all, missingAll := c.compileAll(prev, dAll, m, &badAll)
		if missing.None() != missingAll.None() {
			t.Fatalf("%s: material is missing: %v, and of a complete compile %v", name, missing, missingAll)
		}
		if !missing.None() {
			continue
		}
		if a, b := bad.Faults(), badAll.Faults(); !slices.Equal(a, b) {
			t.Fatalf("%s: the faults are\n%v\nof a complete compile\n%v", name, a, b)
		}
		if a, b := bad.Warnings(), badAll.Warnings(); !slices.Equal(a, b) {
			t.Fatalf("%s: the warnings are\n%v\nof a complete compile\n%v", name, a, b)
		}
		if bad.Len() > 0 {
			return nil, false
		}
		if faulty {
			t.Fatalf("%s: faults of the edit are lost", name)
		}
		next.Require(prev) // puts the requirements in force, as for a live snapshot
		sameSnapshot(t, name+", complete compile", next, all)
		sameSnapshot(t, name+", from nothing", next, c.Restore(t.Context(), next.State()))
		return next, true
	}
}

func sameSnapshot(t *testing.T, name string, a, b *Snapshot) {
	t.Helper()
	if !slices.Equal(a.Problems(), b.Problems()) {
		t.Fatalf("%s: down are\n%v\nand\n%v", name, a.Problems(), b.Problems())
	}
	if !slices.Equal(a.SecurityWarnings(), b.SecurityWarnings()) {
		t.Fatalf("%s: standing warnings are\n%v\nand\n%v", name, a.SecurityWarnings(), b.SecurityWarnings())
	}
	for _, lens := range [][2]int{{a.bundles.Len(), b.bundles.Len()}, {a.certificates.Len(), b.certificates.Len()}, {a.upstreams.Len(), b.upstreams.Len()},
		{a.routes.Len(), b.routes.Len()}, {a.listeners.Len(), b.listeners.Len()}} {
		if lens[0] != lens[1] {
			t.Fatalf("%s: %d objects of a kind, and %d", name, lens[0], lens[1])
		}
	}
	if x, y := dump(a), dump(b); x != y {
		t.Fatalf("%s: the snapshots treat traffic differently; the first difference: %s", name, firstDifference(x, y))
	}
}

func firstDifference(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	from := max(0, i-300)
	return fmt.Sprintf("…%s\nand\n…%s", a[from:min(len(a), i+100)], b[from:min(len(b), i+100)])
}
