package certs_test

import (
	"testing"

	"github.com/drawbridge-gateway/drawbridge/certs"
	"github.com/drawbridge-gateway/drawbridge/certs/certstest"
)

func TestDistinguishedNamesHaveOneSpelling(t *testing.T) {
	for text, want := range map[string]string{
		"CN=a":                        "CN=a",
		"cn = a , O= b ":              "CN=a,O=b",
		"CN=a,OU=x+OU=y":              "CN=a,OU=x+OU=y",
		`O=Super\, Inc.`:              `O=Super\, Inc.`,
		`O=Super\2C Inc.`:             `O=Super\, Inc.`,
		`CN=\20a\ `:                   `CN=\ a\ `,
		"CN=bücher":                   `CN=b\C3\BCcher`,
		`CN=b\c3\bccher`:              `CN=b\C3\BCcher`,
		"2.5.4.3=a":                   "CN=a",
		"1.2.3.4=#0c0161":             "1.2.3.4=#0c0161",
		"1.2.3.4=#0C0161":             "1.2.3.4=#0c0161",
		`CN=\#a`:                      `CN=\#a`,
		"uid=alice,dc=corp,dc=test":   "UID=alice,DC=corp,DC=test",
		`CN=a\=b\"\+`:                 `CN=a=b\"\+`,
		"CN=a=b":                      "CN=a=b",
		"SERIALNUMBER=1,STREET=x y z": "SERIALNUMBER=1,STREET=x y z",
	} {
		if got, err := certs.ParseDistinguishedName(text); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "a", "CN=", "CN= ", "CN=a,", ",CN=a", "=a", "EMAIL=a", "CN=#zz", `CN=a\`, "CN=a,b"} {
		if got, err := certs.ParseDistinguishedName(text); err == nil {
			t.Errorf("%q is accepted as %q", text, got)
		}
	}
}

// IssuerName uses the same spelling, so the names can be compared.
func TestIssuerNameIsParsedToItself(t *testing.T) {
	ca := certstest.NewCA(t)
	leaf := ca.Client(t, "alice").Leaf
	name := certs.IssuerName(leaf)
	if got, err := certs.ParseDistinguishedName(name); name == "" || err != nil || got != name {
		t.Errorf("%q: %q, %v", name, got, err)
	}
}
