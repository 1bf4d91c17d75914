package route

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
	"github.com/drawbridge-gateway/drawbridge/certs/pki"
)

func TestClientNames(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		matches       bool
	}{
		{"DNS:a.example", "DNS:a.example", true},
		{"a.Example.", "DNS:a.example", true},
		{"a.example", "DNS:b.a.example", false},
		{"a.example", "URI:a.example", false},
		{"IP:::ffff:10.0.0.1", "IP:10.0.0.1", true},
		{"10.0.0.1", "IP:10.0.0.2", false},
		{"ops@Corp.example", "email:ops@corp.example", true},
		{"ops@corp.example", "email:Ops@corp.example", false},
		{"spiffe://corp/pay", "URI:spiffe://corp/pay", true},
		{"spiffe://corp/pay", "URI:spiffe://corp/pay/", false},
		{"spiffe://corp/ns/*/sa/pay", "URI:spiffe://corp/ns/blue/sa/pay", true},
		{"spiffe://corp/ns/*/sa/*", "URI:spiffe://corp/ns/blue/sa/pay", true},
		{"spiffe://corp/*", "URI:spiffe://corp/a", true},
		// A wildcard matches exactly one segment.
		{"spiffe://corp/*", "URI:spiffe://corp/", false},
		{"spiffe://corp/*", "URI:spiffe://corp", false},
		{"spiffe://corp/*", "URI:spiffe://corp/a/b", false},
		{"spiffe://corp/ns/*/sa/pay", "URI:spiffe://corp/ns//sa/pay", false},
		{"spiffe://corp/ns/*/sa/pay", "URI:spiffe://corp/ns/a/b/sa/pay", false},
		{"spiffe://corp/ns/*/sa/pay", "URI:spiffe://evil/ns/a/sa/pay", false},
		{"spiffe://corp/ns/*/sa/pay", "URI:https://corp/ns/a/sa/pay", false},
		{"spiffe://corp/ns/*/sa/pay", "DNS:spiffe://corp/ns/a/sa/pay", false},
		// A wildcard does not match text that cannot be a segment of a SPIFFE ID.
		{"spiffe://corp/*", "URI:spiffe://corp/..", false},
		{"spiffe://corp/*", "URI:spiffe://corp/.", false},
		{"spiffe://corp/*", "URI:spiffe://corp/a%2Fb", false},
		{"spiffe://corp/*", "URI:spiffe://corp/a?b", false},
		{"spiffe://corp/*", "URI:spiffe://corp/a#b", false},
		{"spiffe://corp/*", "URI:spiffe://corp/*", false},
		{"spiffe://corp/*", "URI:spiffe://corp/a\x00", false},
		{"spiffe://corp/*/b", "URI:spiffe://corp/a/b?x", false},
	} {
		n, err := parseName(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := n.matches(c.name); got != c.matches {
			t.Errorf("%s matches %q: %v", c.pattern, c.name, got)
		}
	}
}

func TestClientIdentitiesAreChecked(t *testing.T) {
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("DNS:a%d.example", i)
	}
	for name, c := range map[string]struct {
		id     Identity
		fields string
	}{
		"no condition":      {Identity{}, "client_identity"},
		"too many":          {Identity{SANs: many}, "client_identity.subject_alt_names"},
		"a bad fingerprint": {Identity{Fingerprints: []string{strings.Repeat("ab:", 31) + "ab", "abc"}}, "client_identity.sha256_fingerprints[1]"},
		"a bad issuer":      {Identity{Issuer: "Corp CA"}, "client_identity.issuer"},
		"bad names": {Identity{SANs: []string{
			"*.example.com", "DNS:*.example.com", "spiffe://*/a", "spiffe://corp/a*", "spiffe://corp/*a/b", "spiffe://corp/**", "https://corp/*", "spiffe://corp/*/", "spiffe://corp/*?a",
			"spiffe://corp//*", "spiffe://corp/../*", "*@corp.example", "spiffe://corp/%2A/*", "*", "",
		}}, func() string {
			var all []string
			for i := range 15 {
				all = append(all, fmt.Sprintf("client_identity.subject_alt_names[%d]", i))
			}
			return strings.Join(all, " ")
		}()},
	} {
		_, err := New([]Rule[int]{{Name: "r", Client: &c.id}})
		var fields []string
		var list Errors
		if errors.As(err, &list) {
			for _, e := range list {
				var r *RuleError
				if errors.As(e, &r) {
					fields = append(fields, r.Field)
				}
			}
		}
		if got := strings.Join(fields, " "); got != c.fields {
			t.Errorf("%s: faults of %s, want %s: %v", name, got, c.fields, err)
		}
	}
}

// Routes that one certificate can match equally well are refused. Other routes have an
// order.
func TestAmbiguousClientIdentities(t *testing.T) {
	names := func(sans ...string) *Identity { return &Identity{SANs: sans} }
	print := func(c string) string { return strings.Repeat(c, 64) }
	for _, c := range []struct {
		a, b      *Identity
		ambiguous bool
	}{
		{names("DNS:a.com"), names("a.com"), true},
		{names("DNS:a.com", "DNS:b.com"), names("DNS:c.com", "DNS:b.com"), true},
		{names("DNS:a.com"), names("DNS:b.com"), false},
		{names("DNS:a.com"), nil, false},
		{names("spiffe://c/*/x"), names("spiffe://c/a/*"), true},
		{names("spiffe://c/*/x"), names("spiffe://c/*/y"), false},
		{names("spiffe://c/*/x"), names("spiffe://c/*"), false},
		{names("spiffe://c/*/x"), names("spiffe://d/*/x"), false},
		{names("spiffe://c/*/*"), names("spiffe://c/a/*"), false}, // fewer wildcards win
		{names("spiffe://c/*/x", "DNS:a.com"), names("spiffe://c/*/x", "DNS:b.com"), true},
		{&Identity{Fingerprints: []string{print("a"), print("b")}}, &Identity{Fingerprints: []string{strings.ToUpper(print("b"))}}, true},
		{&Identity{Fingerprints: []string{print("a")}}, &Identity{Fingerprints: []string{print("b")}}, false},
		{&Identity{Fingerprints: []string{print("a")}}, names("DNS:a.com"), false},
		{&Identity{Fingerprints: []string{print("a")}, SANs: []string{"DNS:a.com"}}, &Identity{Fingerprints: []string{print("a")}, SANs: []string{"DNS:b.com"}}, false},
		{&Identity{Fingerprints: []string{print("a")}, SANs: []string{"DNS:a.com"}}, &Identity{Fingerprints: []string{print("a")}}, false},
		{&Identity{Issuer: "CN=a, O=b"}, &Identity{Issuer: "cn=a,o=b"}, true},
		{&Identity{Issuer: "CN=a"}, &Identity{Issuer: "CN=b"}, false},
		{&Identity{Issuer: "CN=a", SANs: []string{"DNS:a.com"}}, names("DNS:a.com"), false},
		{&Identity{Issuer: "CN=a", SANs: []string{"DNS:a.com"}}, &Identity{Issuer: "CN=b", SANs: []string{"DNS:a.com"}}, false},
	} {
		for _, pair := range [][2]*Identity{{c.a, c.b}, {c.b, c.a}} {
			first, second := Rule[int]{Name: "a", Client: pair[0]}, Rule[int]{Name: "b", Client: pair[1]}
			_, err := New([]Rule[int]{first, second})
			var conflict *ConflictError
			if got := errors.As(err, &conflict); got != c.ambiguous || (err != nil) != c.ambiguous {
				t.Errorf("%+v and %+v: %v", pair[0], pair[1], err)
			}
			one, err := New([]Rule[int]{first})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := one.Edit(nil, []Rule[int]{second}); (err != nil) != c.ambiguous {
				t.Errorf("%+v, then %+v: %v", pair[0], pair[1], err)
			}
		}
	}
}

// NewClient returns the parts of a certificate in the form of rules.
func TestClientOfACertificate(t *testing.T) {
	ca := certstest.NewCA(t)
	leaf := ca.Leaf(t, pki.LeafOptions{Usage: pki.Client, CommonName: "alice", DNSNames: []string{"a.example"}, IPs: []net.IP{net.ParseIP("10.0.0.1")}, URIs: []string{"spiffe://corp/ns/a/sa/pay"}}).Leaf
	leaf.DNSNames[0] = "A.Example."
	c := NewClient(leaf)
	for _, id := range []Identity{
		{SANs: []string{"a.example"}}, {SANs: []string{"IP:10.0.0.1"}}, {SANs: []string{"b.example", "spiffe://corp/ns/*/sa/pay"}}, {Fingerprints: []string{c.Fingerprint}},
		{Issuer: c.Issuer}, {Issuer: c.Issuer, Fingerprints: []string{c.Fingerprint}, SANs: []string{"a.example"}},
	} {
		table, err := New([]Rule[string]{{Name: "r", Client: &id, Value: "r"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := table.Match(Request{Client: c}); !ok {
			t.Errorf("%+v does not match", id)
		}
		if _, ok := table.Match(Request{}); ok {
			t.Errorf("%+v matches a client without a certificate", id)
		}
	}
	for _, id := range []Identity{
		{Issuer: c.Issuer, SANs: []string{"b.example"}}, {Issuer: "CN=other", SANs: []string{"a.example"}}, {Fingerprints: []string{strings.Repeat("0", 64)}, SANs: []string{"a.example"}},
	} {
		table, err := New([]Rule[string]{{Name: "r", Client: &id, Value: "r"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := table.Match(Request{Client: c}); ok {
			t.Errorf("%+v matches, although one of its conditions does not", id)
		}
	}
	// A wildcard in a certificate's name is not a pattern.
	leaf.URIs = []*url.URL{{Scheme: "spiffe", Host: "corp", Path: "/*"}}
	leaf.DNSNames = []string{"*.example"}
	table, err := New([]Rule[string]{{Name: "r", Client: &Identity{SANs: []string{"a.example", "spiffe://corp/a", "spiffe://corp/*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := table.Match(Request{Client: NewClient(leaf)}); ok {
		t.Error("a certificate with wildcards matches names")
	}
}
