package l7

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/drawbridge-gateway/drawbridge/bridge/l7/message"
	"github.com/drawbridge-gateway/drawbridge/bridge/route"
)

// A Value is what a header rule gives a field: text, in which variables stand for
// what is known of the request. It is immutable. The zero Value is empty.
type Value struct {
	text  string
	parts []part // nil: it is text alone
}

// A part is text, or a variable.
type part struct {
	text     string
	variable func(x *exchange) string // nil: text
}

// variables are those there are, in the order in which they are told of.
var variables = []struct {
	name       string
	inResponse bool // it is known only once there is a response
	of         func(x *exchange) string
}{
	{"client_address", false, func(x *exchange) string { return x.client }},
	{"client_port", false, (*exchange).clientPort},
	{"host", false, func(x *exchange) string { return x.target.host }},
	{"method", false, func(x *exchange) string { return x.request.Method }},
	{"path", false, func(x *exchange) string { return x.target.path }},
	{"scheme", false, func(x *exchange) string { return x.scheme }},
	{"sni", false, (*exchange).sni},
	{"listener", false, func(x *exchange) string { return x.server.options.Listener }},
	{"route", false, func(x *exchange) string { return x.action.Route }},
	{"upstream", false, (*exchange).upstreamName},
	{"request_id", false, func(x *exchange) string { return x.requestID }},
	{"tls_version", false, (*exchange).tlsVersion},
	{"tls_cipher_suite", false, (*exchange).tlsCipherSuite},
	{"client_certificate_subject", false, func(x *exchange) string { return x.conn.session.certificate.identity().Subject }},
	{"client_certificate_fingerprint", false, func(x *exchange) string { return x.conn.session.certificate.identity().SHA256Fingerprint }},
	{"endpoint", true, (*exchange).endpointAddress},
}

// ParseValue returns the Value that a text is, for a rule of requests or of
// responses, or says what is wrong with it and what would be right.
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
			return Value{}, errors.New(`it has a "$" that begins no variable; write "${host}" for one, and "$$" for a dollar sign`)
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
	case len(parts) == 0: // nothing but dollar signs
		return Value{text: plain.String()}, nil
	case plain.Len() > 0:
		parts = append(parts, part{text: plain.String()})
	}
	return Value{parts: parts}, nil
}

func variableOf(name string, response bool) (func(*exchange) string, error) {
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
	return nil, fmt.Errorf("%.60q is no variable; there are %s", "${"+name+"}", strings.Join(known, ", "))
}

// of returns the value for a request: what it is made of can be a field's. A
// Value without variables, or of nothing but one, costs no allocation of its own.
func (v *Value) of(x *exchange) string {
	switch len(v.parts) {
	case 0:
		return v.text
	case 1:
		return known(v.parts[0].variable(x))
	}
	b := x.scratch[:0]
	for i := range v.parts {
		if p := &v.parts[i]; p.variable == nil {
			b = append(b, p.text...)
		} else {
			b = append(b, known(p.variable(x))...)
		}
	}
	x.scratch = b
	return strings.Trim(string(b), " \t") // a variable at an end may be empty
}

// known returns s, or nothing where s could not be in a field. Variables are such
// that this cannot happen; it must not, for what has a line's end in it would be
// another field.
func known(s string) string {
	if !message.IsValue(s) {
		return ""
	}
	return s
}

// sni is the host name that the client asked for in its handshake, in the form in
// which hosts are matched; "" if what it sent is none.
func (x *exchange) sni() string {
	if x.conn.session.serverName == "" {
		return ""
	}
	name, err := route.NormalizeHost(x.conn.session.serverName)
	if err != nil {
		return ""
	}
	return name
}

func (x *exchange) upstreamName() string {
	if x.back == nil {
		return ""
	}
	return x.back.options.Upstream.Name()
}

func (x *exchange) endpointAddress() string {
	if x.endpoint == nil {
		return ""
	}
	return x.endpoint.Address()
}

// tlsVersion is the client's version of TLS, as OpenSSL and nginx write it.
func (x *exchange) tlsVersion() string {
	switch x.conn.session.version {
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

// tlsCipherSuite is the client's cipher suite, as IANA writes it.
func (x *exchange) tlsCipherSuite() string {
	if x.conn.session.version == 0 {
		return ""
	}
	return tls.CipherSuiteName(x.conn.session.suite)
}
