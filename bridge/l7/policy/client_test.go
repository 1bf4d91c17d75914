package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/cidr"
	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestClientIsTheLastUntrustedAddress(t *testing.T) {
	trusting := peers(t, "10.0.0.0/8", "2001:db8::/32", cidr.FromUnix)
	for name, c := range map[string]struct {
		trusted      *cidr.Peers
		from         string
		fields       message.Fields
		client       string
		forwardedFor string // X-Forwarded-For to the upstream
		port         string
	}{
		"no trusted proxies":                     {nil, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1"), "10.0.0.1", "10.0.0.1", "5"},
		"not from a proxy":                       {trusting, "192.0.2.9:5", fields("X-Forwarded-For: 192.0.2.1"), "192.0.2.9", "192.0.2.9", "5"},
		"one proxy":                              {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"a client's own claim":                   {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 127.0.0.1, 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"a client's invalid claim":               {trusting, "10.0.0.1:5", fields("X-Forwarded-For: <script>, 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"a client that claims a proxy's address": {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 10.0.0.9, 192.0.2.1"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"two proxies":                            {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1, 10.0.0.2"), "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1", ""},
		"in several fields":                      {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 6.6.6.6", "A: b", "x-forwarded-for: 192.0.2.1,10.0.0.3", "X-FORWARDED-FOR:  10.0.0.2 "), "192.0.2.1", "192.0.2.1, 10.0.0.3, 10.0.0.2, 10.0.0.1", ""},
		"empty entries":                          {trusting, "10.0.0.1:5", fields("X-Forwarded-For: ,192.0.2.1,, ,10.0.0.2,\t"), "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1", ""},
		"proxies alone":                          {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 10.0.0.3, 10.0.0.2"), "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1", ""},
		"no field":                               {trusting, "10.0.0.1:5", nil, "10.0.0.1", "10.0.0.1", "5"},
		"an empty field":                         {trusting, "10.0.0.1:5", fields("X-Forwarded-For: "), "10.0.0.1", "10.0.0.1", "5"},
		"another spelling":                       {trusting, "10.0.0.1:5", fields("X_Forwarded_For: 192.0.2.1"), "10.0.0.1", "10.0.0.1", "5"},
		"garbage":                                {trusting, "10.0.0.1:5", fields("X-Forwarded-For: unknown"), "10.0.0.1", "10.0.0.1", "5"},
		"garbage behind a proxy":                 {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1, what?, 10.0.0.2"), "10.0.0.1", "10.0.0.1", "5"},
		"a zone":                                 {trusting, "10.0.0.1:5", fields("X-Forwarded-For: fe80::1%eth0"), "10.0.0.1", "10.0.0.1", "5"},
		"a host":                                 {trusting, "10.0.0.1:5", fields("X-Forwarded-For: localhost"), "10.0.0.1", "10.0.0.1", "5"},
		"with a port":                            {trusting, "10.0.0.1:5", fields("X-Forwarded-For: 192.0.2.1:4711"), "192.0.2.1", "192.0.2.1, 10.0.0.1", ""},
		"IPv6":                                   {trusting, "[2001:db8::1]:5", fields("X-Forwarded-For: 2001:DB9:0::1, 2001:db8::2"), "2001:db9::1", "2001:db9::1, 2001:db8::2, 2001:db8::1", ""},
		"IPv6 in brackets":                       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: [2001:db9::1]"), "2001:db9::1", "2001:db9::1, 10.0.0.1", ""},
		"IPv6 with a port":                       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: [2001:db9::1]:4711"), "2001:db9::1", "2001:db9::1, 10.0.0.1", ""},
		"IPv4 in brackets":                       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: [192.0.2.1]"), "10.0.0.1", "10.0.0.1", "5"},
		"IPv4 as IPv6":                           {trusting, "[::ffff:10.0.0.1]:5", fields("X-Forwarded-For: ::ffff:192.0.2.1, ::ffff:10.0.0.2"), "192.0.2.1", "192.0.2.1, 10.0.0.2, 10.0.0.1", ""},
		"over a unix-domain socket":              {trusting, "", fields("X-Forwarded-For: 192.0.2.1"), "192.0.2.1", "192.0.2.1", ""},
		"unix socket, no field":                  {trusting, "", nil, "", "", ""},
		"unix, not trusted":                      {peers(t, "10.0.0.0/8"), "", fields("X-Forwarded-For: 192.0.2.1"), "", "", ""},
		"a long list":                            {trusting, "10.0.0.1:5", fields("X-Forwarded-For: " + strings.Repeat("10.0.0.2, ", 63) + "10.0.0.3"), "10.0.0.2", strings.Repeat("10.0.0.2, ", 63) + "10.0.0.3, 10.0.0.1", ""},
		"too long":                               {trusting, "10.0.0.1:5", fields("X-Forwarded-For: " + strings.Repeat("10.0.0.2, ", 64) + "10.0.0.3"), "10.0.0.1", "10.0.0.1", "5"},
		"an endless entry":                       {trusting, "10.0.0.1:5", fields("X-Forwarded-For: " + strings.Repeat("1", 10000)), "10.0.0.1", "10.0.0.1", "5"},
	} {
		x := factsOf(c.from, c.fields)
		x.Identify(c.trusted)
		CleanRequest(x.Request, &Spelling{})
		x.SetForwarding(SendXForwarded)
		forwardedFor := slices.Collect(x.Request.Fields.Values("X-Forwarded-For"))
		if got := strings.Join(forwardedFor, "|"); x.Client != c.client || got != c.forwardedFor || x.clientPort() != c.port {
			t.Errorf("%s: the client is %q, port %q, and the upstream receives %q; want %q, %q, %q", name, x.Client, x.clientPort(), got, c.client, c.port, c.forwardedFor)
		}
		if want, _ := netip.ParseAddr(c.client); x.Address != want {
			t.Errorf("%s: the client is at %v", name, x.Address)
		}
	}
}

func TestTrustedProxiesDescribeTheRequest(t *testing.T) {
	trusting := peers(t, "10.0.0.1")
	for name, c := range map[string]struct {
		from                string
		fields              message.Fields
		scheme, host, port_ string
	}{
		"no fields":               {"10.0.0.1:5", nil, "http", "a.example", "80"},
		"from an untrusted peer":  {"10.0.0.2:5", fields("X-Forwarded-Proto: https", "X-Forwarded-Host: b", "X-Forwarded-Port: 1"), "http", "a.example", "8080"},
		"https":                   {"10.0.0.1:5", fields("X-Forwarded-Proto: https"), "https", "a.example", "443"},
		"in another case":         {"10.0.0.1:5", fields("x-forwarded-proto: HTTPS"), "https", "a.example", "443"},
		"a host":                  {"10.0.0.1:5", fields("X-Forwarded-Host: B.example."), "http", "b.example", "80"},
		"a host with a port":      {"10.0.0.1:5", fields("X-Forwarded-Host: b.example:81", "X-Forwarded-Proto: https"), "https", "b.example:81", "81"},
		"a port":                  {"10.0.0.1:5", fields("X-Forwarded-Port: 8443", "X-Forwarded-Proto: https"), "https", "a.example", "8443"},
		"all fields":              {"10.0.0.1:5", fields("X-Forwarded-Port: 8443", "X-Forwarded-Proto: https", "X-Forwarded-Host: [2001:DB8::1]:1"), "https", "[2001:db8::1]:1", "8443"},
		"two schemes":             {"10.0.0.1:5", fields("X-Forwarded-Proto: https, http"), "http", "a.example", "80"},
		"two fields":              {"10.0.0.1:5", fields("X-Forwarded-Proto: https", "X-Forwarded-Proto: https"), "http", "a.example", "80"},
		"another scheme":          {"10.0.0.1:5", fields("X-Forwarded-Proto: wss"), "http", "a.example", "80"},
		"another spelling":        {"10.0.0.1:5", fields("X_Forwarded_Proto: https", "X-Forwarded_Host: b"), "http", "a.example", "80"},
		"no host":                 {"10.0.0.1:5", fields("X-Forwarded-Host: b/c"), "http", "a.example", "80"},
		"a user":                  {"10.0.0.1:5", fields("X-Forwarded-Host: u@b"), "http", "a.example", "80"},
		"hosts":                   {"10.0.0.1:5", fields("X-Forwarded-Host: b, c"), "http", "a.example", "80"},
		"an empty host":           {"10.0.0.1:5", fields("X-Forwarded-Host: "), "http", "a.example", "80"},
		"no port":                 {"10.0.0.1:5", fields("X-Forwarded-Port: 0"), "http", "a.example", "80"},
		"an invalid port number":  {"10.0.0.1:5", fields("X-Forwarded-Port: 65536"), "http", "a.example", "80"},
		"no number":               {"10.0.0.1:5", fields("X-Forwarded-Port: +80"), "http", "a.example", "80"},
		"a number with a zero":    {"10.0.0.1:5", fields("X-Forwarded-Port: 0443"), "http", "a.example", "80"},
		"named in Connection too": {"10.0.0.1:5", fields("X-Forwarded-Proto: https", "Connection: X-Forwarded-Proto"), "https", "a.example", "443"},
	} {
		x := factsOf(c.from, c.fields)
		x.Identify(trusting)
		CleanRequest(x.Request, &Spelling{})
		x.SetForwarding(SendXForwarded)
		got := x.Request.Fields
		want := fields("X-Forwarded-For: "+c.from[:8], "X-Forwarded-Host: "+c.host, "X-Forwarded-Port: "+c.port_, "X-Forwarded-Proto: "+c.scheme)
		if x.Scheme != c.scheme || !slices.Equal(got, want) {
			t.Errorf("%s: %s, %v; want %v", name, x.Scheme, got, want)
		}
	}
}

func FuzzFollowForwarded(f *testing.F) {
	f.Add("192.0.2.1, 10.0.0.2", "10.0.0.3")
	f.Add(",,[::1]:80,", " x")
	trusted := peers(f, "10.0.0.0/8", "::1")
	f.Fuzz(func(t *testing.T, one, two string) {
		x := factsOf("10.0.0.1:1", message.Fields{{Name: "X-Forwarded-For", Value: one}, {Name: "X-Forwarded-For", Value: two}})
		x.Identify(trusted)
		x.SetForwarding(SendXForwarded)
		forwardedFor, _ := x.Request.Fields[2:].Get("X-Forwarded-For")
		if !strings.HasPrefix(forwardedFor, x.Client) || !message.IsValue(forwardedFor) {
			t.Fatalf("the upstream receives %q for client %q", forwardedFor, x.Client)
		}
		if len(x.hops) == maxHops {
			return // with the gateway's own entry, the chain is too long
		}
		// The next gateway, which trusts this one, finds the same client.
		next := factsOf("10.0.0.1:1", message.Fields{{Name: "X-Forwarded-For", Value: forwardedFor}})
		if next.Identify(trusted); next.Client != x.Client {
			t.Fatalf("%q leads to %q, not to %q", forwardedFor, next.Client, x.Client)
		}
	})
}
