package snapshot

import (
	"path/filepath"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	"github.com/drawbridge-gateway/drawbridge/gateway/store"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// A compile runs while the writer's lock is held, so it must not read the system's roots:
// reading them for each of 1,000 upstreams took ten seconds. It reports that it needs them.
func TestACompileDoesNotReadTheSystemRoots(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "none")
	t.Setenv("SSL_CERT_FILE", nowhere) // a read is a fault
	t.Setenv("SSL_CERT_DIR", nowhere)
	endpoints := []*adminv1.Endpoint{{Address: "a.example:443"}}
	for name, u := range map[string]*adminv1.Upstream{
		"an upstream with fixed endpoints": {Name: "u", Endpoints: endpoints},
		"an upstream with DNS":             {Name: "u", Dns: &adminv1.Dns{Hostname: "a.example", Port: 443}},
		"a proxy": {Name: "u", Endpoints: endpoints, Transport: &adminv1.Upstream_Plaintext{Plaintext: &adminv1.Plaintext{}},
			Via: &adminv1.Via{Kind: &adminv1.Via_HttpConnect{HttpConnect: &adminv1.HttpConnect{Address: "proxy.example:443", Tls: &adminv1.ProxyTls{}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			prev, e := new(Snapshot), store.Edit{Puts: puts(u)}
			c := testCompiler()
			m, err := c.Gather(t.Context(), prev, e, Needs{})
			if err != nil {
				t.Fatal(err)
			}
			var bad invalid.List
			d := prev.State().Edit(e, &bad)
			if _, missing := c.Compile(prev, d, m, &bad); !missing.System || bad.Len() > 0 {
				t.Errorf("missing: %+v; faults: %v", missing, bad.Err())
			}
		})
	}
}

// An upstream whose trust bundle is down stays down too: it never trusts the system's
// roots instead.
func TestAnUpstreamWhoseTrustBundleIsDownIsDown(t *testing.T) {
	w := newTestbed(t)
	u := &adminv1.Upstream{Name: "u", Endpoints: []*adminv1.Endpoint{{Address: "a.example:443"}},
		Transport: &adminv1.Upstream_Tls{Tls: &adminv1.UpstreamTls{TrustBundles: []string{"b"}}}}
	b := &adminv1.TrustBundle{Name: "b", Source: &adminv1.TrustBundle_File{File: filepath.Join(t.TempDir(), "missing.pem")}}
	var bad invalid.List
	d := w.snap.State().Edit(store.Edit{Puts: puts(b, u)}, &bad)
	if err := bad.Err(); err != nil {
		t.Fatal(err)
	}
	next := testCompiler().Restore(t.Context(), d.State())
	if down := next.upstreams.Get("u").down; down == "" {
		t.Error("the upstream is up")
	}
}
