package snapshot

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/drawbridge-gateway/drawbridge/gateway/invalid"
	adminv1 "github.com/drawbridge-gateway/drawbridge/proto/drawbridge/admin/v1"
)

// via returns an upstream behind a proxy.
func via(t *testing.T, text string) *adminv1.Upstream {
	t.Helper()
	u := tlsUpstream("u", &adminv1.UpstreamTls{TrustBundles: []string{"trust"}})
	u.Via = parseVia(t, text)
	return u
}

func parseVia(t *testing.T, text string) *adminv1.Via {
	t.Helper()
	v := new(adminv1.Via)
	if err := prototext.Unmarshal([]byte(text), v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestEgressProxiesAreChecked(t *testing.T) {
	w := newTestbed(t)
	w.put(w.bundle("trust"), w.client("client"))
	long := strings.Repeat("s3cret", 300)
	for text, fields := range map[string][]invalid.Path{
		``:                                    {"r0.via"},
		`http_connect { }`:                    {"r0.via.http_connect.address"},
		`http_connect { address: "unix:/x" }`: {"r0.via.http_connect.address"},
		`socks5 { address: "proxy" }`:         {"r0.via.socks5.address"},
		`socks5 { address: "p:1" credentials { } }`:                                              {"r0.via.socks5.credentials.password", "r0.via.socks5.credentials.username"},
		`http_connect { address: "p:1" credentials { username: "a:b" password: "s3cret\n" } }`:   {"r0.via.http_connect.credentials.password", "r0.via.http_connect.credentials.username"},
		`socks5 { address: "p:1" credentials { username: "a" password: "` + long[:300] + `" } }`: {"r0.via.socks5.credentials.password"},
		`http_connect { address: "p:1" credentials { username: "a" password: "` + long + `" } }`: {"r0.via.http_connect.credentials.password"},
		`http_connect { address: "p:1" tls { server_name: "a b" trust_bundles: "trust" } }`:      {"r0.via.http_connect.tls.server_name"},
		`http_connect { address: "p:1" tls { trust_bundles: "none" } }`:                          {"r0.via.http_connect.tls.trust_bundles[0]"},
		`http_connect { address: "p:1" tls { trust_bundles: "trust" certificate: "none" } }`:     {"r0.via.http_connect.tls.certificate"},
	} {
		faults := w.refused(via(t, text))
		var got []invalid.Path
		for _, f := range faults {
			got = append(got, f.Field)
		}
		if slices.Sort(got); !slices.Equal(got, fields) || strings.Contains(fmt.Sprint(faults), "s3cret") {
			t.Errorf("%s: %v", text, faults)
		}
	}
	local := via(t, `socks5 { address: "p:1" }`)
	local.Endpoints[0].Address = "unix:/run/x.sock"
	local.GetTls().ServerName = "x.example"
	if faults := w.refused(local); len(faults) != 1 || faults[0].Field != "r0.endpoints[0].address" {
		t.Errorf("a unix socket: %v", faults)
	}

	w.put(via(t, `http_connect { address: "p:3128" credentials { username: "user" password: "s3cret" } tls { trust_bundles: "trust" certificate: "client" } }`))
	before := w.snap.upstreams.Get("u")
	if p := w.snap.Endpoints(t.Context(), "u", "")[0].Target.Via; p == nil || p.Address != "p:3128" || p.Password != "s3cret" || p.TLS == nil {
		t.Errorf("the probe's proxy is %v", p)
	}
	if shown := w.snap.Present(before.msg).(*adminv1.Upstream); shown.GetVia().GetHttpConnect().GetCredentials().GetPassword() != "" || before.msg.GetVia().GetHttpConnect().GetCredentials().GetPassword() == "" {
		t.Errorf("shown: %v", shown)
	}
	// The proxy's trust bundle counts as used: a change to it replaces the upstream's
	// live object.
	w.put(newTestbed(t).bundle("trust"))
	if after := w.snap.upstreams.Get("u"); after.live == before.live || after.proxy == before.proxy {
		t.Error("the proxy is verified against the previous bundle")
	}
}

// A write without the password keeps the stored one, but never for another
// proxy.
func TestThePasswordOfAProxyIsKept(t *testing.T) {
	const secret, plain = ` credentials { username: "user" password: "s3cret" } `, ` credentials { username: "user" } `
	for _, c := range []struct {
		stored, put string
		keeps       bool
	}{
		{`http_connect { address: "p:1"` + secret + `}`, `http_connect { address: "p:1"` + plain + `}`, true},
		{`http_connect { address: "p:1"` + secret + `}`, `http_connect { address: "q:1"` + plain + `}`, false},
		{`http_connect { address: "p:1"` + secret + `}`, `http_connect { address: "p:1" credentials { username: "other" } }`, false},
		{`http_connect { address: "p:1"` + secret + `tls { trust_bundles: "trust" } }`, `http_connect { address: "p:1"` + plain + `}`, false},
		{`socks5 { address: "p:1"` + secret + `}`, `socks5 { address: "p:1"` + plain + `}`, true},
		{`socks5 { address: "p:1"` + secret + `}`, `http_connect { address: "p:1"` + plain + `}`, false},
		{`http_connect { address: "p:1"` + secret + `}`, `http_connect { address: "p:1" credentials { username: "user" password: "other" } }`, false},
	} {
		w := newTestbed(t)
		w.put(w.bundle("trust"), via(t, c.stored))
		got := w.snap.State().Complete(via(t, c.put)).(*adminv1.Upstream).GetVia()
		password := got.GetHttpConnect().GetCredentials().GetPassword() + got.GetSocks5().GetCredentials().GetPassword()
		if (password == "s3cret") != c.keeps {
			t.Errorf("%s, then %s: the password is %q", c.stored, c.put, password)
		}
	}
}
