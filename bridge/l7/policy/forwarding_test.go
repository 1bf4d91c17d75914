package policy

import (
	"slices"
	"testing"
	"time"

	"github.com/drawbridge-gateway/drawbridge/bridge/alloctest"
	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

// A client may claim any origin or certificate for its request, in any spelling.
// An upstream receives only the forwarding fields that the gateway sets, if it
// sets any.
func TestForwardingFieldsCannotBeForged(t *testing.T) {
	for _, name := range []string{
		"X-Forwarded-For", "X_forwarded_for", "X-Forwarded_for", "x-forwarded-for", "X-FORWARDED-FOR", "X-Forwarded-Host", "X_Forwarded_Host",
		"X-Forwarded-Proto", "X_Forwarded_Proto", "X-Forwarded-Port", "X-Forwarded-Client-Cert", "X-Forwarded", "Forwarded", "forwarded", "FORWARDED",
		"X-Real-Ip", "X_Real_IP", "X-Client-Cert", "x-client-cert-subject", "X_Client_Cert_Subject", "X-Client_Cert-San", "X-CLIENT-CERT-FINGERPRINT",
		"X-Client-Cert-Serial", "X-Client-Cert-Anything", "Client-Cert", "client_cert", "CLIENT-CERT", "Client-Cert-Chain", "Client_Cert_Chain", "client-cert_chain",
	} {
		for how, own := range map[Forwarding]message.Fields{
			SendXForwarded:   fields("X-Forwarded-For: 10.1.2.3", "X-Forwarded-Host: a.example", "X-Forwarded-Port: 8080", "X-Forwarded-Proto: http"),
			SendForwarded:    fields("Forwarded: for=10.1.2.3;host=a.example;proto=http"),
			SendNoForwarding: nil,
		} {
			for _, trusted := range []*cidr.Peers{nil, peers(t, "10.1.2.3")} {
				f := fields(name+": forged", name+": forged", "X-Other: kept", "Connection: X-Forwarded-For, x-forwarded-host, Forwarded", "Connection: X-FORWARDED-PROTO, X-Client-Cert-Subject, client-cert")
				x := factsOf("10.1.2.3:1", f)
				x.Identify(trusted)
				CleanRequest(x.Request, &Spelling{})
				x.SetForwarding(how)
				want := append(fields("X-Other: kept"), own...)
				if trusted != nil && how == SendXForwarded {
					want[3].Value = "80"
				}
				if !slices.Equal(x.Request.Fields, want) {
					t.Errorf("%s: %v, want %v", name, x.Request.Fields, want)
				}
			}
		}
	}
}

func TestForwarded(t *testing.T) {
	trusted := peers(t, "10.0.0.0/8", "2001:db8::/32", cidr.FromUnix)
	for want, c := range map[string]struct {
		from, host string
		fields     message.Fields
	}{
		"for=192.0.2.1;host=a.example;proto=http":                                    {"192.0.2.1:5", "a.example", nil},
		`for="[2001:db9::1]";host="a.example:81";proto=http`:                         {"[2001:db9::1]:5", "a.example:81", nil},
		`for="[2001:db9::1]";host="[::1]";proto=http`:                                {"[2001:db9::1]:5", "[::1]", nil},
		"host=a.example;proto=http":                                                  {"", "a.example", nil},
		"for=192.0.2.1;host=b;proto=https, for=10.0.0.1":                             {"10.0.0.1:5", "a.example", fields("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: b")},
		`for=192.0.2.1;host=a.example;proto=http, for="[2001:db8::2]", for=10.0.0.1`: {"10.0.0.1:5", "a.example", fields("X-Forwarded-For: 6.6.6.6, 192.0.2.1, 2001:db8::2")},
		"for=192.0.2.1;host=a.example;proto=http, for=10.0.0.2":                      {"", "a.example", fields("X-Forwarded-For: 192.0.2.1, 10.0.0.2")},
		"for=10.0.0.9;host=a.example;proto=http":                                     {"10.0.0.9:5", "a.example", fields("Forwarded: for=6.6.6.6")}, // a client's Forwarded field is never read
	} {
		x := factsOf(c.from, c.fields)
		x.Target.Host, x.Target.Authority, _ = normalAuthority(c.host)
		x.Identify(trusted)
		CleanRequest(x.Request, &Spelling{})
		x.SetForwarding(SendForwarded)
		if got := x.Request.Fields; !slices.Equal(got, fields("Forwarded: "+want)) {
			t.Errorf("%v, want %s", got, want)
		}
	}
	x := factsOf("192.0.2.1:5", nil)
	x.Identify(nil)
	x.SetForwarding(SendBoth)
	if want := fields("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Host: a.example", "X-Forwarded-Port: 8080", "X-Forwarded-Proto: http",
		"Forwarded: for=192.0.2.1;host=a.example;proto=http"); !slices.Equal(x.Request.Fields, want) {
		t.Errorf("both: %v", x.Request.Fields)
	}
	x = factsOf("", nil)
	x.Identify(nil)
	x.SetForwarding(SendXForwarded)
	if want := fields("X-Forwarded-Host: a.example", "X-Forwarded-Proto: http"); !slices.Equal(x.Request.Fields, want) {
		t.Errorf("of a client without an address: %v", x.Request.Fields)
	}
}

// Applying the policy to a plain request allocates nothing.
func TestPolicyOfAPlainRequestAllocatesNothing(t *testing.T) {
	access, trusted := &cidr.Access{Deny: addresses(t, "192.0.2.0/24", "2001:db8::/32")}, peers(t, "192.0.2.1")
	given := fields("User-Agent: x", "Accept: */*", "X-Tenant: b", "X_Role: admin", "X-Forwarded-For: 6.6.6.6", "Connection: keep-alive")
	x := factsOf("10.1.2.3:1", make(message.Fields, 0, 20))
	rules := HeaderRules{Remove: []string{"X-Role"}, Set: values("X-Tenant: a", "X-From: ${client_address}"), Add: values("X-More: 1")}
	protected, noRules := Protected{Rules: &rules}, HeaderRules{}
	var response message.Response
	var random Entropy
	start := time.Now()
	alloctest.Want(t, "a request", 0, func() {
		x.Request.Fields = append(x.Request.Fields[:0], given...)
		x.Identify(trusted)
		x.AssignRequestID("", start, &random)
		if !access.Serves(x.Address) {
			t.Error("no access")
		}
		CleanRequest(x.Request, &Spelling{})
		x.SetForwarding(SendXForwarded)
		x.SetCertificate(SendIdentity)
		x.SetRequestID("")
		rules.ApplyRequest(x)
		protected.CleanAnnouncement(x.Request)
		noRules.ApplyResponse(&response.Fields, x)
	})
	want := fields("User-Agent: x", "Accept: */*", "X-Tenant: a", "X-Forwarded-For: 10.1.2.3", "X-Forwarded-Host: a.example", "X-Forwarded-Port: 8080", "X-Forwarded-Proto: http",
		"X-From: 10.1.2.3", "X-More: 1")
	if !slices.Equal(x.Request.Fields, want) {
		t.Errorf("%v", x.Request.Fields)
	}
}
