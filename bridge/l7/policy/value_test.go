package policy

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
)

func TestValues(t *testing.T) {
	x := factsOf("10.1.2.3:4711", nil)
	x.Identify(nil)
	x.Route, x.RequestID = "r", "id-1"
	x.Target = Target{Host: "a.example", Authority: "a.example:80", Path: "/v2/x%2Fy", Query: "?q"}
	for text, want := range map[string]string{
		"":                           "",
		"plain":                      "plain",
		"a $$ b":                     "a $ b",
		"$$":                         "$",
		"$${host}":                   "${host}",
		"${host}":                    "a.example",
		"$$${host}$$":                "$a.example$",
		"${client_address}":          "10.1.2.3",
		"${client_port}":             "4711",
		"${method} ${path}":          "GET /v2/x%2Fy",
		"${scheme}://${host}${path}": "http://a.example/v2/x%2Fy",
		"${listener}/${route}":       "front/r",
		"${request_id}":              "id-1",
		"a${sni}b":                   "ab",
		"${sni}":                     "",
		"${sni} x ${tls_version}":    "x", // no blank at an end
		"[${upstream}${endpoint}]":   "[]",
		"${client_certificate_subject}${client_certificate_fingerprint}${tls_cipher_suite}": "",
		"{host} }${": "error", "${host": "error", "${}": "error", "${Host}": "error", "$host": "error", "50$": "error", "${ host}": "error",
		"${host\r\n}": "error", "a\nb": "error", " a": "error", "${host} ": "error", "${${host}}": "error",
	} {
		v, err := ParseValue(text, true)
		if want == "error" {
			if err == nil {
				t.Errorf("%q is accepted", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := v.Expand(x); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestErrorsOfValuesNameTheFix(t *testing.T) {
	for _, c := range []struct {
		text     string
		response bool
		hints    []string
	}{
		{"${hots}", false, []string{`"${hots}" is not a variable`, "${host}", "${client_certificate_fingerprint}"}},
		{"${hots}", true, []string{"${endpoint}"}},
		{"${endpoint}", false, []string{"only in a response"}},
		{"x${host", false, []string{`"${" without "}"`}},
		{"$host", false, []string{`write "${host}"`, `"$$"`}},
		{"${" + strings.Repeat("x", 1000) + "}", false, []string{"is not a variable"}},
	} {
		_, err := ParseValue(c.text, c.response)
		if err == nil || len(err.Error()) > 600 {
			t.Errorf("%.20s: %v", c.text, err)
			continue
		}
		for _, hint := range c.hints {
			if !strings.Contains(err.Error(), hint) {
				t.Errorf("%.20s: %v; want a hint of %q", c.text, err, hint)
			}
		}
	}
	if _, err := ParseValue("${hots}", false); strings.Contains(err.Error(), "endpoint") {
		t.Errorf("the error for a request offers a variable of responses: %v", err)
	}
}

// The variables are exactly those that the API documents.
func TestVariablesMatchTheAPI(t *testing.T) {
	proto, err := os.ReadFile("../../../proto/drawbridge/admin/v1/route.proto")
	if err != nil {
		t.Fatal(err)
	}
	_, comment, _ := strings.Cut(string(proto), "message HeaderValue {")
	var documented, have []string
	for _, m := range regexp.MustCompile(`\$\{([a-z_]+)\}`).FindAllStringSubmatch(comment, -1) {
		documented = append(documented, m[1])
	}
	for _, v := range variables {
		have = append(have, v.name)
	}
	if !slices.Equal(documented, have) {
		t.Errorf("the API documents %v, the code has %v", documented, have)
	}
}

func FuzzParseValue(f *testing.F) {
	for _, s := range []string{"a${host}$$", "${", "$", "${method}${path}", "x"} {
		f.Add(s, "a\r\nb")
	}
	f.Fuzz(func(t *testing.T, text, route string) {
		v, err := ParseValue(text, true)
		if err != nil {
			return
		}
		x := factsOf("10.1.2.3:4711", nil)
		x.Route = route // an invalid route name: inserted values are never trusted
		if got := v.Expand(x); !message.IsValue(got) {
			t.Errorf("%q results in %q, which is not a valid field value", text, got)
		}
		if !strings.Contains(text, "$") && v.Expand(x) != text {
			t.Errorf("a value without variables was changed: %q", text)
		}
	})
}

func TestHeaderRules(t *testing.T) {
	r := HeaderRules{
		Remove: []string{"a", "content-length", "Drop-Me"},
		Set:    values("b: 2", "Host: x", "X-Tenant: ${client_address}"),
		Add:    values("c: 3", "a: 5", "Transfer-Encoding: x", "X-Tenant: 5"),
	}
	given := []string{"A: 1", "B: 1", "C: 1", "Host: h", "Content-Length: 3", "Drop_Me: 1", "X_Tenant: 1", "x-tenant: 2"}
	x := factsOf("10.1.2.3:4711", fields(given...))
	r.ApplyRequest(x)
	// Setting or removing a field also removes its other spellings.
	if want := fields("b: 2", "C: 1", "Host: h", "Content-Length: 3", "X-Tenant: 10.1.2.3", "c: 3", "a: 5", "X-Tenant: 5"); !slices.Equal(x.Request.Fields, want) {
		t.Errorf("request: %v, want %v", x.Request.Fields, want)
	}
	response := fields(given...)
	r.ApplyResponse(&response, x)
	if want := fields("B: 2", "C: 1", "Host: h", "Content-Length: 3", "Drop_Me: 1", "X_Tenant: 1", "x-tenant: 10.1.2.3", "c: 3", "a: 5", "X-Tenant: 5"); !slices.Equal(response, want) {
		t.Errorf("response: %v, want %v", response, want)
	}
	for name, decided := range map[string]bool{"A": true, "x_tenant": true, "X-TENANT": true, "drop_me": true, "c": false, "X-Tenants": false} {
		if r.decides(name) != decided {
			t.Errorf("%s is decided on: %v", name, !decided)
		}
	}
}
