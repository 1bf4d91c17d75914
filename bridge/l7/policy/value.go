package policy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// A Value is the value that a header rule sets: text with variables that stand
// for facts of the request. It is immutable. The zero Value is empty.
type Value struct {
	text  string
	parts []part // nil: text alone
}

// A part is text, or a variable.
type part struct {
	text     string
	variable func(f *Facts) string // nil: text
}

// variables are listed in the order in which errors and docs name them.
var variables = []struct {
	name       string
	inResponse bool // known only in a response
	of         func(f *Facts) string
}{
	{"client_address", false, func(f *Facts) string { return f.Client }},
	{"client_port", false, (*Facts).clientPort},
	{"host", false, func(f *Facts) string { return f.Target.Host }},
	{"method", false, func(f *Facts) string { return f.Request.Method }},
	{"path", false, func(f *Facts) string { return f.Target.Path }},
	{"scheme", false, func(f *Facts) string { return f.Scheme }},
	{"sni", false, (*Facts).sni},
	{"listener", false, func(f *Facts) string { return f.Listener }},
	{"route", false, func(f *Facts) string { return f.Route }},
	{"upstream", false, func(f *Facts) string { return f.Upstream }},
	{"request_id", false, func(f *Facts) string { return f.RequestID }},
	{"tls_version", false, (*Facts).tlsVersion},
	{"tls_cipher_suite", false, (*Facts).tlsCipherSuite},
	{"client_certificate_subject", false, func(f *Facts) string { return f.Connection.Session.Identity().Subject }},
	{"client_certificate_fingerprint", false, func(f *Facts) string { return f.Connection.Session.Identity().SHA256Fingerprint }},
	{"endpoint", true, func(f *Facts) string { return f.Endpoint }},
}

// ParseValue parses the value of a rule for requests or for responses. Its error
// states the fault and the fix.
func ParseValue(text string, response bool) (Value, error) {
	if err := CheckFieldValue(text); err != nil {
		return Value{}, err
	}
	if !strings.Contains(text, "$") {
		return Value{text: text}, nil
	}
	var parts []part
	var plain strings.Builder
	for rest := text; rest != ""; {
		before, after, dollar := strings.Cut(rest, "$")
		plain.WriteString(before)
		if rest = after; !dollar {
			break
		}
		if after, ok := strings.CutPrefix(rest, "$"); ok {
			plain.WriteByte('$')
			rest = after
			continue
		}
		inner, ok := strings.CutPrefix(rest, "{")
		if !ok {
			return Value{}, errors.New(`it has a "$" that begins no variable; write "${host}" for a variable and "$$" for a dollar sign`)
		}
		name, after, ok := strings.Cut(inner, "}")
		if !ok {
			return Value{}, errors.New(`it has "${" without "}"`)
		}
		variable, err := variableOf(name, response)
		if err != nil {
			return Value{}, err
		}
		if plain.Len() > 0 {
			parts = append(parts, part{text: plain.String()})
			plain.Reset()
		}
		parts = append(parts, part{variable: variable})
		rest = after
	}
	switch {
	case len(parts) == 0: // no variables, only escaped dollar signs
		return Value{text: plain.String()}, nil
	case plain.Len() > 0:
		parts = append(parts, part{text: plain.String()})
	}
	return Value{parts: parts}, nil
}

func variableOf(name string, response bool) (func(*Facts) string, error) {
	var known []string
	for _, v := range variables {
		switch {
		case v.inResponse && !response && v.name == name:
			return nil, fmt.Errorf("${%s} is known only in a response", name)
		case v.inResponse && !response:
		case v.name == name:
			return v.of, nil
		default:
			known = append(known, "${"+v.name+"}")
		}
	}
	return nil, fmt.Errorf("%.60q is not a variable; the variables are %s", "${"+name+"}", strings.Join(known, ", "))
}

// Expand returns the value for a request, which is always a valid field value. A Value
// without variables, or of a single variable, allocates nothing.
func (v *Value) Expand(f *Facts) string {
	switch len(v.parts) {
	case 0:
		return v.text
	case 1:
		return fieldValue(v.parts[0].variable(f))
	}
	b := f.scratch[:0]
	for i := range v.parts {
		if p := &v.parts[i]; p.variable == nil {
			b = append(b, p.text...)
		} else {
			b = append(b, fieldValue(p.variable(f))...)
		}
	}
	f.scratch = b
	return strings.Trim(string(b), " \t") // a variable at an end may be empty
}

// fieldValue returns s, or "" if s is not a valid field value. No variable should
// have such a value, but a line break in one would begin another field.
func fieldValue(s string) string {
	if !message.IsValue(s) {
		return ""
	}
	return s
}

// sni returns the server name of the client's handshake, in the normal form of
// hosts; "" if the client sent no valid name.
func (f *Facts) sni() string {
	given := f.Connection.Session.serverName
	if given == "" {
		return ""
	}
	name, err := route.NormalizeHost(given)
	if err != nil {
		return ""
	}
	return name
}

// tlsVersion returns the client's version of TLS, as OpenSSL and nginx write it.
func (f *Facts) tlsVersion() string {
	switch f.Connection.Session.version {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return ""
}

// tlsCipherSuite returns the client's cipher suite, as IANA writes it.
func (f *Facts) tlsCipherSuite() string {
	if f.Connection.Session.version == 0 {
		return ""
	}
	return tls.CipherSuiteName(f.Connection.Session.suite)
}
